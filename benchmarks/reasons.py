"""What each part is about, and why a goal is missed: found with a profile, said in words."""

from __future__ import annotations

ABOUT = {
    "workloads": (
        "Workloads",
        "W1: one sender, one receiver, each send awaited, each message received and acked one at"
        " a time; W1b: the same with 100 sends in flight; W2: request and answer; W3: 100"
        " concurrent senders, one receiver; W4: broadcasts to 100 waiting agents, in deliveries a"
        " second; W5: everything is sent (in SQLite 100 at a time) before anyone receives. Compared"
        " with `asyncio.Queue`, which promises nothing, and with a plain `sqlite3` table that is"
        " as durable as the store (insert, claim by `UPDATE .. RETURNING`, delete). That table's"
        " loop has no event loop, no ids, keys, fences or history to keep. In the batched form a"
        " commit takes 100 messages wherever the workload lets a caller have 100 at hand.",
    ),
    "claim": (
        "The cost of a message, whatever else is in the store",
        "A mailbox is filled with messages that wait for their turn (`pending`) or for a later time"
        " (`delayed`), are in other hands (`leased`), or stand behind the leased heads of 100"
        " threads (`blocked`, in an ordered mailbox). Then other messages are sent, claimed and"
        " acked one at a time. The stores of each size are filled once, in processes of their own,"
        " which take turns at blocks of 200 messages; a value is the median of a block."
        " CPU is that of all threads of the process.",
    ),
    "wake": (
        "Waking and waiting",
        "One process waits in `receive()`, another sends, over one SQLite file; the clock is one"
        " that all processes share. `return of send` leaves out what the sender itself waits for:"
        " its commit to disk. Waiting is measured as CPU time of a process over 10 s, in per cent"
        " of one core; `beside another's sends` is a process whose mailboxes get nothing, while"
        " another one sends up to 50 messages a second to someone else.",
    ),
    "growth": (
        "A million messages later",
        "Sent by 100 tasks, at most 1,000 of them unhandled, every tenth with an explicit key;"
        " handled by `serve(concurrency=100)` in the same process, and settled. The start is before"
        " the first message. The log is SQLite's write-ahead log.",
    ),
    "memory": (
        "Memory and import",
        "Resident memory over the number of messages that wait; CPU time, user and system, of whole"
        " processes.",
    ),
}

WHY: dict[str, dict[str, str]] = {name: {} for name in ABOUT}
