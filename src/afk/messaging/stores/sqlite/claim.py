"""Claiming, and what time alone brings about."""

from __future__ import annotations

from ...errors import UnknownAgentError
from ...lifecycle import spread, token_of
from ...store import Batch, Claim, Leased
from .step import DEAD, HELD, LEASED, READY, Held, Step

SEEN = 30.0
"""Seconds for which a mailbox's `last_seen` may lag: an idle consumer must not write."""


def pass_time(step: Step) -> None:
    """Leases end, delays are over, ttls run out: for all mailboxes of the namespace."""
    for row in step.where("due <= ?", step.now):
        if row.state == LEASED and row.last:
            step.finish(row, DEAD, "exhausted", row.error or "the lease ended")
        else:
            step.line_up(row, step.now)
    for row in step.where("expires <= ?", step.now):
        step.line_up(row, step.now)


def next_due(step: Step) -> float:
    """When time next brings something about."""
    times = [
        step.db.execute(
            f"SELECT min({column}) FROM afk_delivery WHERE space = ? AND {column} IS NOT NULL",
            (step.space,),
        ).fetchone()[0]
        for column in ("due", "expires")
    ]
    return min((at for at in times if at is not None), default=float("inf"))


def claim(step: Step, request: Claim) -> Batch:
    """Lease the first ready messages of a mailbox."""
    shelf = step.shelf(request.mailbox) if request.limit else None
    if request.limit and shelf is None:
        raise UnknownAgentError(request.mailbox)
    pass_time(step)
    if shelf is None:
        return Batch((), step.obituaries())
    if shelf.seen is None or step.now - shelf.seen > SEEN:
        shelf.seen, shelf.dirty = step.now, True
    rows = step.db.execute(
        f"SELECT body, redrives, {HELD} FROM afk_delivery"
        " WHERE space = ? AND mailbox = ? AND line = ? ORDER BY rank, seq LIMIT ?",
        (step.space, request.mailbox, READY, request.limit),
    ).fetchall()
    if not rows:
        step.next_due = min(step.next_due, next_due(step))
    return Batch(
        tuple(
            [
                _grant(step, request, index, Held(*held), body, redrives)
                for index, (body, redrives, *held) in enumerate(rows)
            ]
        ),
        step.obituaries(),
    )


def _grant(step: Step, request: Claim, index: int, row: Held, body: bytes, redrives: int) -> Leased:
    row.attempt = attempt = row.attempt + 1
    row.fence = fence = row.fence + 1
    last = attempt >= request.policy.max_attempts
    end = step.now + request.lease
    due = end if last else end + request.policy.delay(attempt, spread(request.chance, index))
    expires = None if row.until is None else max(end, row.until)
    step.db.execute(
        "UPDATE afk_delivery SET state = ?, line = NULL, expires = ?, attempt = ?, fence = ?,"
        " last = ?, lease = ?, due = ?, leased = coalesce(leased, ?) WHERE seq = ?",
        (LEASED, expires, attempt, fence, last, end, due, step.now, row.seq),
    )
    step.next_due = min(step.next_due, due, expires or due)
    token = token_of(row.id, fence)
    step.granted(token, row)
    if request.hold is not None:
        step.held.append((token, request.lease, request.hold))
    return Leased(
        token=token,
        id=row.id,
        mailbox=request.mailbox,
        body=body,
        attempt=attempt,
        redrives=redrives,
    )


def give_back(step: Step, batch: Batch) -> None:
    """Undo a claim that nobody waits for any more."""
    for leased in batch.leased:
        row = step.holder(leased.token or "")
        step.grants.pop(leased.token or "", None)
        if row is not None:
            step.released.append(leased.token or "")
            step.line_up(row, step.now, fence=row.fence + 1, attempt=row.attempt - 1)
