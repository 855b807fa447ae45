"""Changing what is there: mailboxes come and go, messages are cancelled, redriven, discarded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ...records import decode, fingerprint
from ...store import MAIL, Box
from .claim import pass_time
from .step import BLOCKED, CANCELLED, DEAD, ENDING, LEASED, PENDING, READY, Held, Step


def bind(step: Step, box: Box) -> Box:
    """Create the mailbox, or return it as it was created."""
    shelf = step.shelf(box.name)
    if shelf is not None:
        return shelf.box
    step.db.execute(
        # What is still leased since it was last registered comes back to it.
        "INSERT INTO afk_mailbox SELECT ?, ?, ?, ?, ?, count(*), NULL FROM afk_delivery"
        " WHERE space = ? AND mailbox = ? AND due IS NOT NULL",
        (step.space, box.name, box.ordered, box.capacity, box.max_bytes, step.space, box.name),
    )
    step.forget_shelf(box.name)
    _roster_changed(step)
    return box


def unbind(step: Step, name: str) -> tuple[str, ...]:
    """Refuse new mail, then bury what waits; what is leased is buried when it comes back."""
    gone = "DELETE FROM afk_mailbox WHERE space = ? AND name = ?"
    if not step.db.execute(gone, (step.space, name)).rowcount:
        return ()
    step.forget_shelf(name)
    _roster_changed(step)
    pass_time(step)
    for waits in ("line IN (0, 1)", "line IS NULL AND due > 0"):  # by an index each
        for row in step.where(f"mailbox = ? AND {waits}", name):
            if row.state != LEASED or (row.lease or 0.0) <= step.now:
                step.finish(row, DEAD, "unregistered", row.error)
    return step.obituaries()


def _roster_changed(step: Step) -> None:
    step.db.execute("UPDATE afk_space SET roster = roster + 1 WHERE space = ?", (step.space,))


def amend(
    step: Step,
    verb: Literal["cancel", "redrive", "discard"],
    ids: tuple[str, ...],
    agent: str | None,
) -> int:
    """Change these messages, or all dead ones of the agent."""
    change: Callable[[Step, Held], bool] = {
        "cancel": _cancel,
        "redrive": _redrive,
        "discard": _discard,
    }[verb]
    if ids:
        rows = [row for row in map(step.find, dict.fromkeys(ids)) if row is not None]
        rows = [row for row in rows if agent is None or row.mailbox == agent]
    else:
        rows = step.where("dead IS NOT NULL AND mailbox = ? ORDER BY dead", agent)
    return sum(change(step, row) for row in rows)


def _cancel(step: Step, row: Held) -> bool:
    waits = row.state < LEASED or (row.state == LEASED and (row.lease or 0.0) <= step.now)
    if waits:
        step.finish(row, CANCELLED)
    return waits


def _redrive(step: Step, row: Held) -> bool:
    shelf = step.shelf(row.mailbox)
    if row.state != DEAD or shelf is None:
        return False
    step.count(row.mailbox, 1)
    step.accepted += 1
    ttl, body = step.db.execute(
        "SELECT ttl, body FROM afk_delivery WHERE seq = ?", (row.seq,)
    ).fetchone()
    thread = _thread(body)
    until = None if ttl is None else step.now + ttl
    thread = thread if shelf.box.ordered and thread else None
    behind = thread is not None and bool(
        step.where("mailbox = ? AND thread = ? LIMIT 1", row.mailbox, thread)
    )
    step.topics.append(MAIL + row.mailbox)
    step.next_due = min(step.next_due, until or step.next_due)
    step.db.execute(
        "UPDATE afk_delivery SET seq = ?, state = ?, line = ?, start = ?, until = ?, expires = ?,"
        " thread = ?, attempt = 0, fence = fence + 1, redrives = redrives + 1, settled = NULL,"
        " reason = NULL, dead = NULL, gone = NULL, fade = NULL, trim = NULL WHERE seq = ?",
        (
            step.accepted,
            PENDING,
            BLOCKED if behind else READY,
            step.now,
            until,
            until,
            thread,
            row.seq,
        ),
    )
    return True


def _discard(step: Step, row: Held) -> bool:
    if row.state != DEAD:
        return False
    (body,) = step.db.execute("SELECT body FROM afk_delivery WHERE seq = ?", (row.seq,)).fetchone()
    changes = ", ".join(f"{name} = ?" for name in ("digest", *ENDING))
    step.db.execute(
        f"UPDATE afk_delivery SET body = NULL, {changes} WHERE seq = ?",
        (fingerprint(body), *step.ending(row, CANCELLED, None, row.error), row.seq),
    )
    step.ended_as(row, CANCELLED)
    return True


def _thread(body: bytes) -> str | None:
    try:
        return decode(body).thread_id or None
    except ValueError:  # it cannot be read, and will be buried again
        return None
