"""Reading: rows, counts."""

from __future__ import annotations

from typing import Any

from ...lifecycle import State, delivery_order
from ...messages import PRIORITIES
from ...records import fingerprint
from ...store import MailboxStats, Query, Row
from . import codec
from .lane import Lane

STATES: tuple[State, ...] = ("pending", "scheduled", "leased", "done", "dead", "cancelled")
SLICE = 500
"""Rows read in one call, at most: others wait for their answers meanwhile."""


async def browse(lane: Lane, query: Query) -> list[Row]:
    """Rows as they are."""
    if query.order == "delivery" and query.mailbox in lane.ordered:
        return await _as_delivered(lane, query)
    by, named = _by(query)
    if query.ids is not None or query.order == "delivery":
        return await _rows(lane, query, by, named, query.after, query.limit)
    found: list[Row] = []
    after = query.after
    while True:
        left = SLICE if query.limit is None else min(SLICE, query.limit - len(found))
        rows = await _rows(lane, query, by, named, after, left)
        found += rows
        if len(rows) < left or len(found) == query.limit:
            return found
        after = rows[-1].cursor


def _by(query: Query) -> tuple[str, list[str]]:
    """By which index, and what is looked for in it."""
    if query.ids is not None:
        return "ids", list(query.ids)
    if query.chain is not None:
        return "chain", [codec.kept(query.chain)]
    return query.order, []


async def _rows(
    lane: Lane, query: Query, by: str, named: list[str], after: int | None, limit: int | None
) -> list[Row]:
    state = None if query.state is None else STATES.index(query.state)
    rows = await lane.ask(
        *(f"rows_by_{by}", named, [], query.mailbox, state, query.reason, after, limit),
        repeatable=True,
    )
    return [_row(row) for row in rows]


async def _as_delivered(lane: Lane, query: Query) -> list[Row]:
    """All that waits in an ordered mailbox is looked at for the order."""
    waiting = await lane.ask("waiting", query.mailbox, repeatable=True)
    places = delivery_order(
        (row["rank"], row["seq"], codec.shown(row["thread"] or "")) for row in waiting
    )[: query.limit]
    rows = await lane.ask(
        *("rows_by_places", [], places, query.mailbox, None, query.reason, None, None),
        repeatable=True,
    )
    by_place = {row["cursor"]: _row(row) for row in rows}
    found = [by_place[place] for place in places if place in by_place]
    return [row for row in found if query.state in (None, row.state)]


def _row(row: Any) -> Row:
    return Row(
        id=row["id"],
        mailbox=row["mailbox"],
        body=row["body"],
        state=STATES[row["state"]],
        attempt=row["attempt"],
        accepted_at=row["accepted"],
        leased_at=row["leased"],
        settled_at=row["settled"],
        reason=row["reason"],
        error=codec.shown(row["error"]),
        redrives=row["redrives"],
        fence=row["fence"],
        thread=codec.shown(row["thread"] or ""),
        awaited=row["awaited"] == 1,
        answer=row["answer"],
        cursor=row["cursor"],
    )


async def dead(lane: Lane, agent: str) -> tuple[str, ...]:
    """The dead letters of an agent."""
    rows = await browse(lane, Query(mailbox=agent, order="ended"))
    return tuple([row.id for row in rows])


async def digests(lane: Lane, ids: list[str]) -> dict[str, bytes]:
    """What tells these messages from others once their bodies are gone."""
    rows = await browse(lane, Query(ids=tuple(ids)))
    return {row.id: fingerprint(row.body) for row in rows if row.body is not None}


async def counts(lane: Lane, mailbox: str | None) -> dict[str, MailboxStats]:
    """The counts of every registered mailbox, or of this one."""
    rows = await lane.ask("counts", mailbox, repeatable=True)
    return {row["name"]: _stats(row) for row in rows}


def _stats(row: Any) -> MailboxStats:
    pending = dict(zip(PRIORITIES, row["pending"], strict=True))
    age = row["age"]
    return MailboxStats(
        pending=pending | {"all": sum(pending.values())},
        leased=row["leased"],
        scheduled=row["scheduled"],
        dead=row["dead"],
        oldest_age=None if age is None else max(0.0, age),
        last_seen=row["seen"],
    )
