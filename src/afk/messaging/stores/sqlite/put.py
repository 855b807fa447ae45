"""Taking a turn: the outcome of a delivery and what is sent with it, all or nothing."""

from __future__ import annotations

from functools import cache

from ...lifecycle import Again, DeadReason, Done, Extend, Outcome, room
from ...records import fingerprint, wire
from ...store import FATE, MAIL, Accepted, Refusal, Send, Turn, Verdict
from .claim import pass_time
from .step import (
    BLOCKED,
    CANCELLED,
    DEAD,
    DONE,
    ENDING,
    PENDING,
    READY,
    SCHEDULED,
    Held,
    Step,
)

_ALWAYS = (
    *("seq", "space", "id", "mailbox", "sender", "key", "digest", "rank", "body"),
    *("line", "start", "thread", "chain", "awaited", "ttl", "until", "expires", "accepted"),
    *("retention", "history", "history_max"),
)
_WAITING = ("state", "error", "due")
"""Columns of all that is stored, and those of an open message beside them."""


def take_turns(step: Step, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
    """Each turn in order."""
    return tuple([take_turn(step, turn) for turn in turns])


def take_turn(step: Step, turn: Turn) -> Verdict:
    """One turn; a refusal leaves nothing of it."""
    single = len(turn.sends) + (turn.token is not None) < 2
    if single:  # it checks before it writes: a refusal leaves at most what time brought about
        taken = _take(step, turn)
    else:
        saved = step.saved()
        step.db.execute("SAVEPOINT turn")
        taken = _take(step, turn)
        if isinstance(taken, Refusal):
            step.db.execute("ROLLBACK TO turn")
            step.restore(saved)
        step.db.execute("RELEASE turn")
    if isinstance(taken, Refusal):
        return Verdict(taken, died=step.obituaries())
    return Verdict(None, taken, step.obituaries())


def _take(step: Step, turn: Turn) -> Refusal | tuple[Accepted, ...]:
    if turn.roster is not None and turn.roster != roster_version(step):
        return Refusal("roster")
    done = type(turn.outcome) is Done and step.done(turn.token or "")
    if turn.token is not None and turn.outcome is not None and not done:
        row = step.holder(turn.token)
        if row is None:
            return Refusal("lease_lost")
        _settle(step, row, turn.token, turn.outcome)
    accepted: list[Accepted] = []
    for send in turn.sends:
        result = _send(step, send)
        if isinstance(result, Refusal):
            return result
        accepted.append(result)
    return tuple(accepted)


def roster_version(step: Step) -> int:
    """The version of the directory."""
    (version,) = step.db.execute(
        "SELECT roster FROM afk_space WHERE space = ?", (step.space,)
    ).fetchone()
    return int(version)


def _settle(step: Step, row: Held, token: str, outcome: Outcome) -> None:
    if isinstance(outcome, Extend):
        seconds = outcome.seconds
        if outcome.hold is None and token in step.holds and row.lease is not None:
            # What is held stays held: an earlier end would be put off by the next renewal.
            seconds = max(seconds, row.lease - step.now)
        step.extend(row, seconds)
        if outcome.hold is not None:
            step.held.append((token, outcome.seconds, outcome.hold))
        return
    step.released.append(token)
    step.grants.pop(token, None)
    if isinstance(outcome, Done):
        step.finish(row, DONE)
    elif isinstance(outcome, Again):
        step.line_up(
            row,
            step.now + outcome.delay,
            fence=row.fence + 1,
            attempt=row.attempt if outcome.counts else row.attempt - 1,
            error=outcome.error or row.error,
        )
    else:
        step.finish(row, DEAD, outcome.reason, outcome.error)


def _send(step: Step, send: Send) -> Accepted | Refusal:
    """Store one message, or say why not: that its key or id is known, before that it has no
    place."""
    if _is_new(step, send):
        return Accepted(send.id)
    known = _known(step, send)
    if known is not None:
        return known
    if send.answers is not None:
        request = step.find(send.answers)
        if request is not None and request.awaited == 1:
            return _answer(step, send, request)
        if request is None and send.awaited:
            return Accepted(send.id, ignored=True)
    dead = send.dead
    if dead is None:
        refusal = _no_place(step, send)
        if refusal is not None:
            if not send.alone:
                return refusal
            copy = send.answers is None  # of a broadcast; else an answer
            reason: DeadReason = "full" if copy and refusal.kind == "full" else "undeliverable"
            dead = (reason, refusal.kind)
    row = _new(step, send)
    if dead is not None:
        _insert(step, send, row, ENDING, step.ending(row, DEAD, *dead))
        step.ended_as(row, DEAD)
    else:
        _admit(step, send, row)
    return Accepted(send.id)


def _is_new(step: Step, send: Send) -> bool:
    """Whether it is a plain one that had a place, and is stored: its id was not known, which that
    tells without a look of its own."""
    plain = send.key is None and send.answers is None and send.dead is None
    if not plain or _no_place(step, send) is not None:
        return False
    stored = _admit(step, send, _new(step, send))
    if not stored:
        step.accepted -= 1
    return stored


def _known(step: Step, send: Send) -> Accepted | Refusal | None:
    found = None
    query = "SELECT id, mailbox, sender, key, digest, body FROM afk_delivery WHERE space = ? AND "
    if send.key is not None:
        found = step.db.execute(
            query + "mailbox = ? AND sender = ? AND key = ?",
            (step.space, send.mailbox, send.sender, send.key),
        ).fetchone()
    if found is None:
        found = step.db.execute(query + "id = ?", (step.space, send.id)).fetchone()
        if found is None:
            return None
        if found[1:4] != (send.mailbox, send.sender, send.key):
            return Refusal("conflict", send.mailbox, found[0])
    message_id, _, _, _, digest, body = found
    if digest is None and body is not None:
        digest = fingerprint(body)
    if send.compare and digest not in (None, fingerprint(send.body)):
        return Refusal("conflict", send.mailbox, message_id)
    return Accepted(message_id, duplicate=True)


def _no_place(step: Step, send: Send) -> Refusal | None:
    shelf = step.shelf(send.mailbox)
    if shelf is None:
        return Refusal("unknown", send.mailbox, send.id)
    box = shelf.box
    if len(wire(send.body)) > box.max_bytes:
        return Refusal("too_large", send.mailbox, send.id, box.max_bytes)
    most = room(box.capacity, send.rank == 0)
    if shelf.open >= most:
        pass_time(step)
        if shelf.open >= most:
            return Refusal("full", send.mailbox, send.id, box.capacity)
    return None


def _new(step: Step, send: Send) -> Held:
    step.accepted += 1
    return Held(
        seq=step.accepted,
        id=send.id,
        mailbox=send.mailbox,
        state=PENDING,
        line=READY,
        start=step.now + send.delay if send.delay else 0.0,
        lease=None,
        fence=0,
        attempt=0,
        last=0,
        thread=None,
        until=None if send.ttl is None else step.now + send.ttl,
        error="",
        kept=int(send.key is not None or send.awaited),
        history=send.history,
        retention=send.retention,
        history_max=send.history_max,
        awaited=int(send.awaited),
    )


def _admit(step: Step, send: Send, row: Held) -> bool:
    """A new message takes its place: ready, scheduled, or behind its thread's head. False, and
    nothing is stored, if its id was there."""
    shelf = step.shelf(send.mailbox)
    assert shelf is not None
    if shelf.box.ordered and send.thread:
        row.thread = send.thread
        if step.where("mailbox = ? AND thread = ? LIMIT 1", send.mailbox, send.thread):
            row.line = BLOCKED
    due = None
    if row.line != BLOCKED and row.start > step.now:
        row.state, row.line, due = SCHEDULED, None, row.start
    if not _insert(step, send, row, _WAITING, (row.state, "", due)):
        return False
    shelf.open += 1
    shelf.dirty = True
    step.next_due = min(step.next_due, row.until or step.next_due, due or step.next_due)
    if row.line == READY:
        step.topics.append(MAIL + send.mailbox)
    return True


def _answer(step: Step, send: Send, request: Held) -> Accepted:
    """An answer is done at once, and its request's result; a second one is passed over."""
    (answered,) = step.db.execute(
        "SELECT answer FROM afk_delivery WHERE seq = ?", (request.seq,)
    ).fetchone()
    if answered is not None or request.state == CANCELLED:
        return Accepted(send.id, ignored=True)
    row = _new(step, send)
    row.retention = max(send.retention, request.retention)  # as long as who asked counts on it
    row.awaited = 2
    _insert(step, send, row, ENDING, step.ending(row, DONE, None, "", answer=True))
    step.ended_as(row, DONE)
    # The request must be found for as long as its result is kept, as a dead letter whole.
    step.db.execute(
        "UPDATE afk_delivery SET answer = :answer, gone = max(gone, :until),"
        f" fade = CASE state WHEN {DEAD} THEN max(fade, :until) ELSE fade END WHERE seq = :seq",
        {"answer": send.id, "until": step.now + row.retention, "seq": request.seq},
    )
    step.topics.append(FATE + request.id)
    return Accepted(send.id)


def _insert(
    step: Step, send: Send, row: Held, columns: tuple[str, ...], values: tuple[object, ...]
) -> bool:
    """Store it with these columns beside those that all have; False if its id was there."""
    ended = columns is ENDING
    stored = step.db.execute(
        _inserting(columns),
        (
            *(row.seq, step.space, send.id, send.mailbox, send.sender, send.key),
            *(fingerprint(send.body) if row.kept else None, send.rank, wire(send.body)),
            *(None if ended else row.line, row.start, row.thread, send.chain, row.awaited),
            *(send.ttl, row.until, None if ended else row.until, step.now),
            *(send.retention, send.history, send.history_max),
            *values,
        ),
    )
    return stored.rowcount == 1


@cache
def _inserting(columns: tuple[str, ...]) -> str:
    """One text for the same columns."""
    names = (*_ALWAYS, *columns)
    places = ", ".join("?" * len(names))
    return (
        f"INSERT INTO afk_delivery (fence, attempt, last, redrives, {', '.join(names)})"
        f" VALUES (0, 0, 0, 0, {places}) ON CONFLICT (space, id) DO NOTHING"
    )
