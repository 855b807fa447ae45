"""What each part is about, and why a goal is missed: found with a profile, said in words.

A reason stands under the start of the names it explains; a curve is named `pending: sqlite`.
"""

from __future__ import annotations

ABOUT = {
    "workloads": (
        "Workloads",
        "W1: one sender, one receiver, each send awaited, each message received and acked one at"
        " a time; W1b: the same with 100 sends in flight; W2: request and answer; W3: 100"
        " concurrent senders, one receiver; W4: broadcasts to 100 waiting agents, in deliveries a"
        " second; W5: everything is sent (in SQLite 100 at a time) before anyone receives. Compared"
        " with `asyncio.Queue` and anyio's streams, which promise nothing, with autogen-core, whose"
        " messages are published on a topic that their reader subscribes to (a tenth as many of"
        " them), and with a plain `sqlite3` table that is"
        " as durable as the store (insert, claim by `UPDATE .. RETURNING`, delete). That table's"
        " loop has no event loop, no ids, keys, fences or history to keep. In the batched form a"
        " commit takes 100 messages wherever the workload lets a caller have 100 at hand. huey and"
        " persist-queue keep their queues in SQLite as durably, in the thread of who calls, which"
        " is blocked meanwhile, and tell nobody that there is mail (here an event does); huey"
        " deletes a task as it is taken, so there is no ack. aiosqlite is the plain table, awaited."
        " On Redis"
        " each job has a server of its own, which writes to disk before it answers (`appendfsync"
        " always`). Reliable lists move a message to a second list and remove it from there when it"
        " is handled; streams are read by a consumer group, acked and deleted; lists for one reader"
        " are read in place and cut off, which a second reader would break. FastStream reads a"
        " stream in a group, acks after its handler, and answers by publish/subscribe. On"
        " PostgreSQL each job has a server of its own with the settings it is shipped with, so a"
        " commit is on disk. The table in asyncpg is claimed with `FOR UPDATE SKIP LOCKED` under a"
        " lease and rows are deleted when they are handled; its senders notify, in the same"
        " transaction or, where many are taken at a time, after it and together. PgQueuer and"
        " procrastinate are set up as their guides say, their pools at five connections (PgQueuer's"
        " default); both delete a job that is done, PgQueuer many in one statement, which nobody"
        " waits for. On NATS each job has a server of its own"
        " with its default, which is to sync files every two minutes, on both sides (or, where the"
        " line says so, before each answer). The peers keep a work queue in a file and read it"
        " through a durable pull consumer, with explicit acks; every publish and every ack is"
        " confirmed, except that of 100 acks the last one is asked for. A broadcast is one message"
        " which each agent reads through a consumer of its own. FastStream does not wait for its"
        " acks, and its answers are plain messages.\n\nEach workload runs in turns: ours, then each"
        " other. p50 and p99 are what a caller waits: for a send or a broadcast (of 100 sent"
        " together, for all of them), in W2 for the answer; a message's way to another process is"
        " under *Waking and waiting*. With `asyncio.Queue` every 16th call is timed, since the"
        " clock would be felt. CPU is what a message takes of the process both sides share, user"
        " and system; server, of the server's processes; RSS, the most memory the process held."
        " `Ours over its` compares messages a second, in W2 the p50.",
    ),
    "profile": (
        "Where the time goes",
        "Processor time of the process that sends and handles (not of a server), by whose code it"
        " is: whoever holds the interpreter's lock is looked for with py-spy 500 times a second,"
        " and what is written in C counts as its caller's. What runs without the lock (system"
        " calls, SQLite) is the rest of what the process took. `mailboxes` is what all stores"
        " share: messages, checks, orders, workers, receipts. `ledger` is the rules of the memory"
        " store and of NATS, which the others have in SQL or Lua. `event loop` is asyncio. A"
        " message is in W2 one with its answer, in W4 a copy.",
    ),
    "curves": (
        "Cost as work grows",
        "One message after the other is sent, claimed and acked, with ever more of one thing and"
        " everything else as it was: the medians of the three steps, added up; CPU is that of all"
        " threads of the process. Each point is a process of its own (with a server of its own)"
        " that is filled once; all points of a curve take turns. Flat means at most 1.3 times the"
        " cost of the first point.",
    ),
    "claim": (
        "The same with messages that cannot be had",
        "A mailbox is filled with messages that wait for a later time (`delayed`), are in other"
        " hands (`leased`), or stand behind the leased heads of 100 threads (`blocked`, in an"
        " ordered mailbox). Then other messages are sent, claimed and acked one at a time. The"
        " stores of each size are filled once, in processes of their own, which take turns at"
        " blocks of 200 messages; a value adds the medians of a block. CPU is that of all threads"
        " of the process.",
    ),
    "wake": (
        "Waking and waiting",
        "One process waits in `receive()`, another sends, over one SQLite file or one server;"
        " the clock is one that all processes share. `return of send` leaves out what the"
        " sender itself waits for: its commit to disk. Waiting is measured as CPU time of a process"
        " over 10 s, in per cent of one core (without that of a server); `beside another's"
        " sends` is a process whose mailboxes get nothing, while another one sends up to 50"
        " messages a second to someone else. Waking depends on who else"
        " wants the cores: in a run with both overloaded the p50 after return was 7.4 ms, and"
        " with 1,000 mailboxes 15.7 ms, past the goal.",
    ),
    "growth": (
        "A million messages later",
        "Sent by 100 tasks, at most 1,000 of them unhandled, every tenth with an explicit key;"
        " handled by `serve(concurrency=100)` in the same process, and settled. The start is before"
        " the first message. The log is SQLite's write-ahead log; for NATS the file is its streams,"
        " as the server counts them. The file holds about a second of"
        " traffic, so its size follows the rate; by `levels off` we mean at most a quarter more in"
        " the second half.",
    ),
    "churn": (
        "What PostgreSQL keeps",
        "The same flow through one PostgreSQL database, whose server is as it is shipped, its"
        " vacuuming too (but for what the store's tables say themselves). After each tenth the"
        " worker stops; two seconds later the sizes and rows of all tables are read, as the server"
        " counts them, and 200 messages are sent, claimed and acked one at a time in the same"
        " mailbox: `send`, `claim` and `ack` are medians of those. `Second half` is next to the"
        " first: the greatest size, the median of the times.",
    ),
    "memory": (
        "Memory",
        "Resident memory over the number of messages that wait, in the stores that have all of them"
        " in the process: memory, and NATS, whose log each process follows.",
    ),
    "start": (
        "Start-up",
        "CPU time, user and system, of whole processes. No store and no command is imported before"
        " it is used, and nothing the stores need: a test has the list of modules.",
    ),
}

GROWS = {
    "pending": "Messages that wait in the mailbox, before those that are measured.",
    "agents": "Registered agents; the messages are for up to 200 of them, all over the directory.",
    "bytes": "Bytes of a message's text. This cannot be flat: what is sent has to be checked,"
    " encoded, stored and read. Each store takes 1 MiB (`max_bytes` is set to 2 MiB).",
    "processes": "Processes that use the same store at once, each sending to a mailbox of its own"
    " and reading that. Time is that of all, from start to end, over all their messages; CPU"
    " is that of all processes and the server's. There are fewer cores than processes.",
    "history": "Messages that were handled before and are kept, with their bodies.",
}

DURABILITY = {
    "memory": "in memory",
    "sqlite": "synced to disk",
    "redis": "synced to disk",
    "postgres": "synced to disk",
    "nats": "on disk, synced every 2 min",
    "nats_synced": "synced to disk",
}
"""What holds for a message when its send returns: on both sides of a comparison."""

WHY: dict[str, dict[str, str]] = {
    "workloads": {
        "memory: W1": "Memory, W1, W1b, W3 and W5: no single place is to blame (none takes 10 %)."
        " Under *Where the time goes*, some 60 % of a message are the mailboxes, which check, copy,"
        " name, order and read it, and a third the ledger. Did ledger and store take nothing, it"
        " would be about an eighth of the queue: the goal is out of reach for mailboxes that check"
        " what they are given and are the same for all stores. The lane by hand shows how much is"
        " left with no recipients, keys, priorities, deadlines, capacities and other stores: it"
        " reaches about 0.4 times the queue, and the goal is half of that. Half of the lane's speed"
        " would need a second way through the library, for memory alone, past the port that all"
        " stores share; we keep the one way.",
        "memory: W3": "Memory, W3: as W1.",
        "memory: W5": "Memory, W5: as W1.",
        "memory: W2": "Memory, W2: a request is two stored messages, two claims (one finds"
        " nothing: then the worker hangs its bell), a look for the answer, a task with a"
        " time-out for its handler, and two waits. Storing takes a quarter of the time.",
        "memory: W4": "Memory, W4: a waiting reader claims twice for each message: it finds"
        " nothing and hangs its bell, is woken and takes the message.",
        "sqlite: W1,": "SQLite, W1: a message is one commit with `receive()` (its ack, the next"
        " send and the next claim share it) and two with `claim()` and `ack()`, where the others"
        " make two or three; that is what counts on a disk that is slow to sync. On this one it is"
        " processor time, three fifths of which are Python, a sixth the system and an eighth"
        " SQLite: each call is handed to the writer thread and back, which is two wake-ups of a"
        " thread, a transaction locks, looks for what is to be forgotten and notes its counts, and"
        " a row has five indexes to keep instead of one.",
        "sqlite: W1b": "SQLite, W1b, W3 and W5: a commit takes up to a hundred messages, but of a"
        " message's processor time about half is its mailboxes and the event loop, and half the"
        " writer thread: three statements and the Python around them. The two share one interpreter"
        " lock, which SQLite lets go of and needs again for each row, so they do not work side by"
        " side; a plain loop has little of either.",
        "sqlite: W2": "SQLite, W2: a request is two commits that wait for each other (the request"
        " with the worker's claim; the answer with its ack, and the look for it), where the others"
        " make four to six; each is handed to the writer thread and back, and a task handles it: as"
        " W1.",
        "sqlite: W3": "SQLite, W3: as W1b.",
        "sqlite: W4": "SQLite, W4: one commit takes the last acks, stores the copies and claims"
        " them; but each of the hundred readers claims and acks for itself: as W1b.",
        "sqlite: W5": "SQLite, W5: as W1b.",
        "redis: W1,": "Redis, W1: a message is two scripts (its ack and the next send; the next"
        " claim), which leave together with `receive()`, for one sync to disk, and one after the"
        " other with `claim()` and `ack()`. The plain loop makes three short commands. Alone the"
        " two cost the server more than twice the instructions that a message costs it among"
        " others; the client is most of its time on the event loop's way from call to socket and"
        " back.",
        "redis: W1b": "Redis, W1b, W3 and W5: a message costs the server some 80 µs (storing,"
        " claiming and settling it: fifteen calls in Lua, mostly on hash fields and sorted sets,"
        " each write also to the file) and the client a little more. They work side by side, the"
        " server on one script of up to 32 turns, the client for those whom the one before"
        " answered. A list of 100 at a time costs a message a few µs on either side, and keeps no"
        " key, lease, order of retries, thread or history.",
        "redis: W3": "Redis, W3: as W1b.",
        "redis: W5": "Redis, W5: as W1b.",
        "redis: W2": "Redis, W2: a request is two writes, each with a sync to disk, that wait for"
        " each other: the request and the worker's claim; the answer, a claim that finds nothing"
        " and notes who is to be woken, and the look for the answer. Five scripts: as W1.",
        "redis: W4": "Redis, W4: the last acks, the copies and the claims leave together; but each"
        " of the hundred readers claims for itself, a script each.",
        "postgres: W1,": "PostgreSQL, W1: a message is one call of a function with `receive()`,"
        " two with `claim()` and `ack()`, each a commit. Called for one message, the function"
        " takes the server some 350 µs beyond the commit (inserting 170, claiming 135, settling"
        " 175, counting the mailbox 70, of what two calls share); called for a hundred, a third"
        " of that a message in all. A message is one row with seven indexes that is written"
        " three times, and stays for the history, where the peers delete theirs.",
        "postgres: W1b": "PostgreSQL, W1b, W3 and W5: the server takes as much of a message"
        " (inserting a row with seven indexes, writing it again when it is claimed and when it is"
        " settled) as the client. They work side by side, but not all the time: a hundred callers"
        " make three calls of up to 64 turns, and in the first of them the process has little to"
        " do, in the last the server. PgQueuer's server takes less, as it deletes what is done, and"
        " many at a time.",
        "postgres: W2": "PostgreSQL, W2: a request is three calls that wait for each other: the"
        " request and the worker's claim; the answer, its ack and the next claim; the look for the"
        " answer. The first two commit: as W1.",
        "postgres: W3": "PostgreSQL, W3: as W1b.",
        "postgres: W4": "PostgreSQL, W4: the copies are stored by one function, the claims and acks"
        " of the readers by others, up to 64 together; but each reader claims for itself.",
        "postgres: W5": "PostgreSQL, W5: as W1b.",
        "nats: W1,": "NATS, W1: each step is published and comes back through the log before it is"
        " answered, so a step is two ways through the client; a message is one step with"
        " `receive()`, two with `claim()` and `ack()`, with a record that is checked and a ledger"
        " that decides. The peers' server does what the ledger does here.",
        "nats: W1b": "NATS, W1b: as W3.",
        "nats: W2": "NATS, W2: a request is two steps through the log that wait for each other: the"
        " request and the worker's claim; the answer.",
        "nats: W3": "NATS, W3: no single place is to blame (none takes 7 %): the server has next to"
        " nothing to do, and the client is at work all the time. Under *Where the time goes*, not"
        " quite half of it is the mailboxes, a fifth each the ledger and what encodes, publishes"
        " and reads the steps, and a sixth the event loop.",
        "nats: W4": "NATS, W4: one step takes the last acks, stores the copies and claims them; but"
        " each of the hundred readers claims for itself.",
        "nats: W5": "NATS, W5: as W3.",
    },
    "curves": {
        "processes: sqlite": "SQLite, processes: a file has one writer at a time. With more"
        " processes than cores each waits for the lock of the others, and wakes for what they wrote"
        " to look whether it concerns it.",
        "history: postgres": "PostgreSQL, history: it is the claims, and not the history. Until the"
        " table is vacuumed, a claim walks past the index entries of all that was claimed before:"
        " right after 600,000 messages it took 2.4 to 3.3 ms, and half a minute later, when"
        " autovacuum had come by, 0.7 ms. As the server is shipped it comes once a minute.",
        "processes: nats": "NATS, processes: each process replays every step of the namespace, so"
        " what one of them does all of them pay for: processor time a message grows with their"
        " number, until it is the cores that are waited for.",
    },
    "profile": {},
    "claim": {},
    "wake": {},
    "growth": {},
    "churn": {},
    "memory": {},
    "start": {
        "afk.messaging": "Import: more than half of it is `asyncio`, without which nothing works"
        " here. What the package adds is spread evenly over some thirty modules, each 1 to 3 ms.",
    },
}
