"""What the memory store shows: rows and counts, changing nothing."""

from __future__ import annotations

from collections.abc import Iterable

from ...lifecycle import State, delivery_order, seen_state
from ...messages import PRIORITIES
from ...store import MailboxStats, Query, Row
from .rows import Entry


def select(rows: Iterable[Entry], query: Query, now: float) -> list[Row]:
    """What the query asks for of these rows, which are in its order."""
    shown: list[Row] = []
    for row in rows:
        if not _fits(row, query):
            continue
        cursor = row.past.ended if query.order == "ended" else row.place
        if query.after is not None and cursor <= query.after:
            continue
        view = _row(row, cursor, now)
        if query.state is None or view.state == query.state:
            shown.append(view)
            if len(shown) == query.limit:
                break
    return shown


def as_delivered(rows: Iterable[Entry], now: float) -> list[Entry]:
    """Those that wait, in the order in which they would be delivered."""
    waiting = {row.place: row for row in rows if _state(row, now) == "pending"}
    order = delivery_order(
        (row.rank, row.place, row.thread if row.threaded else "") for row in waiting.values()
    )
    return [waiting[place] for place in order]


def _fits(row: Entry, query: Query) -> bool:
    return (
        (query.mailbox is None or row.mailbox == query.mailbox)
        and (query.reason is None or row.past.reason == query.reason)
        and (query.chain is None or query.chain in (row.chain, row.id))
    )


def _row(row: Entry, cursor: int, now: float) -> Row:
    past = row.past
    return Row(
        id=row.id,
        mailbox=row.mailbox,
        body=row.body,
        state=_state(row, now),
        attempt=past.attempt,
        accepted_at=row.accepted_at,
        leased_at=past.leased_at,
        settled_at=past.settled_at,
        reason=past.reason,
        error=past.error,
        redrives=past.redrives,
        fence=past.fence,
        thread=row.thread,
        awaited=row.asks,
        answer=None if past.answer is None else past.answer.body,
        cursor=cursor,
    )


def mailbox_stats(
    rows: Iterable[Entry], last_seen: dict[str, float | None], now: float
) -> dict[str, MailboxStats]:
    """The counts of each mailbox named in `last_seen`."""
    waiting: dict[str, list[Entry]] = {name: [] for name in last_seen}
    tally = {name: {"leased": 0, "scheduled": 0, "dead": 0} for name in last_seen}
    for row in rows:
        state = _state(row, now)
        if row.mailbox not in tally:
            continue
        if state == "pending":
            waiting[row.mailbox].append(row)
        elif state in tally[row.mailbox]:
            tally[row.mailbox][state] += 1
    return {
        name: MailboxStats(
            pending=_per_priority(waiting[name]),
            oldest_age=max((now - row.accepted_at for row in waiting[name]), default=None),
            last_seen=last_seen[name],
            **tally[name],
        )
        for name in last_seen
    }


def _per_priority(rows: list[Entry]) -> dict[str, int]:
    counts = dict.fromkeys(PRIORITIES, 0) | {"all": len(rows)}
    for row in rows:
        counts[PRIORITIES[row.rank]] += 1
    return counts


def _state(row: Entry, now: float) -> State:
    return seen_state(
        row.state,
        now,
        due=row.due,
        lease_end=row.past.lease_end,
        last=row.past.last,
        expires=row.expires,
    )
