"""Reading rows: which index to read, and a row from a hash."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

from ...lifecycle import State, delivery_order, seen_state
from ...messages import PRIORITIES
from ...store import MailboxStats, Query, Row

SLICE = 250
"""Rows read in one script, at most."""

Look = Callable[..., Awaitable[list[Any]]]
"""look("ids" | "index" | "line", ...) -> [now, rows], as look.lua says."""


_AT = {
    name: index + 1
    for index, name in enumerate(
        (
            *("mailbox", "state", "attempt", "accepted", "leased", "settled", "reason", "error"),
            *("redrives", "fence", "thread", "awaited", "place", "ended", "lease", "due", "last"),
            *("ends", "fades", "gone", "rank", "threaded", "backoff", "answer"),
            *("body", "answer_body"),
        )
    )
}
"""Where look.lua puts each field."""


class Found:
    """A row of look.lua."""

    __slots__ = ("_values", "id", "now")

    def __init__(self, values: list[Any], now: int) -> None:
        self._values = values
        self.id: str = values[0].decode()
        self.now = now

    def raw(self, name: str) -> bytes | None:
        """A field as it is stored."""
        value: bytes | None = self._values[_AT[name]]
        return value

    def text(self, name: str) -> str:
        """A field as text; '' if there is none."""
        return (self.raw(name) or b"").decode()

    def number(self, name: str) -> int | None:
        """A field as a number."""
        value = self.raw(name)
        return None if value is None else int(value)

    def time(self, name: str) -> float | None:
        """A field as seconds since the epoch."""
        value = self.raw(name)
        return None if value is None else int(value) / 1000

    @property
    def rank(self) -> int:
        """Its place among priorities; what is normal is not written."""
        rank = self.number("rank")
        return 2 if rank is None else rank

    @property
    def place(self) -> int:
        """Its place in the order of acceptance."""
        return self.number("place") or 0

    @property
    def gone(self) -> bool:
        """Whether nothing covers it any more: the next write lets go of it."""
        gone = self.number("gone")
        return gone is not None and gone <= self.now

    @property
    def state(self) -> State:
        """Its state now."""
        stored = self.text("state")
        lease_end = self.number("lease") or 0
        back = lease_end + (self.number("backoff") or 0)
        return seen_state(
            cast("State", "pending" if stored == "blocked" else stored),
            self.now,
            due=back if stored == "leased" else self.number("due") or 0,
            lease_end=lease_end,
            last=self.raw("last") == b"1",
            expires=self.number("ends"),
        )

    def row(self, by_death: bool = False) -> Row:
        """The port's row."""
        fades = self.number("fades")
        faded = fades is not None and fades <= self.now
        return Row(
            id=self.id,
            mailbox=self.text("mailbox"),
            body=None if faded else self.raw("body"),
            state=self.state,
            attempt=self.number("attempt") or 0,
            accepted_at=self.time("accepted") or 0.0,
            leased_at=self.time("leased"),
            settled_at=self.time("settled"),
            reason=cast("Any", self.text("reason") or None),
            error=self.text("error"),
            redrives=self.number("redrives") or 0,
            fence=self.number("fence") or 0,
            thread=self.text("thread"),
            awaited=self.raw("awaited") == b"1",
            answer=self.raw("answer_body"),
            cursor=self.number("ended" if by_death else "place") or 0,
        )


async def browse(look: Look, query: Query, listens: bool, ordered: bool) -> list[Row]:
    """Rows as they are. listens: this process waits for the fate of the ids; ordered: what the
    mailbox is."""
    if query.order == "delivery" and query.mailbox is not None:
        found = _as_delivered(look, query.mailbox, query.limit, ordered)
    elif query.ids is not None:
        found = _by_ids(look, query.ids, listens)
    else:
        found = _by_index(look, query)
    rows: list[Row] = []
    async for each in found:
        row = each.row(query.order == "ended")
        if not each.gone and _fits(row, query, each):
            rows.append(row)
            if len(rows) == query.limit:
                break
    return rows


def _fits(row: Row, query: Query, found: Found) -> bool:
    if query.ids is None and query.after is not None and row.cursor <= query.after:
        return False
    return (
        (query.mailbox is None or row.mailbox == query.mailbox)
        and (query.state is None or row.state == query.state)
        and (query.reason is None or row.reason == query.reason)
        and (query.order != "ended" or found.raw("ended") is not None)
        and (query.order != "delivery" or row.state == "pending")
    )


async def _by_ids(look: Look, ids: tuple[str, ...], listens: bool) -> AsyncIterator[Found]:
    for start in range(0, len(ids), SLICE):
        now, rows = await look("ids", int(listens), *ids[start : start + SLICE])
        for values in rows:
            yield Found(values, now)


async def _by_index(look: Look, query: Query) -> AsyncIterator[Found]:
    """In the order of the index that fits best; the root of a chain at its place."""
    root: Found | None = None
    if query.chain is not None:
        now, rows = await look("ids", 0, query.chain)
        root = Found(rows[0], now) if rows else None
    size = min(SLICE, query.limit or SLICE)
    async for found in walk(look, _index(query), _cursor(query), size=size):
        if root is not None and root.place <= found.place:
            if root.id != found.id:
                yield root
            root = None
        yield found
    if root is not None:
        yield root


def _index(query: Query) -> tuple[str, str]:
    """The sorted set to read, and the field that it is sorted by."""
    if query.order == "ended":
        return ("dead" if query.mailbox is None else f"dead:{query.mailbox}"), "ended"
    if query.chain is not None:
        return f"chain:{query.chain}", "place"
    if query.mailbox is not None and query.state in ("pending", "scheduled", "leased"):
        return f"open:{query.mailbox}", "place"
    return "accepted", "place"


def _cursor(query: Query) -> int | str:
    return "" if query.after is None else query.after


async def walk(
    look: Look,
    index: tuple[str, str],
    after: int | str = "",
    *,
    bodies: bool = True,
    size: int = SLICE,
) -> AsyncIterator[Found]:
    """All of an index, slice by slice; index: the sorted set and the field that it is sorted by.
    size: of the first slice, which may be enough."""
    name, cursor = index
    while True:
        now, rows = await look("index", name, after, size, int(bodies))
        for values in rows:
            found = Found(values, now)
            after = found.number(cursor) or 0
            yield found
        if len(rows) < size:
            return
        size = SLICE


async def _as_delivered(
    look: Look, mailbox: str, limit: int | None, ordered: bool
) -> AsyncIterator[Found]:
    if not ordered and limit is not None:
        now, rows = await look("line", mailbox, limit)
        line = [Found(values, now) for values in rows]
        line.sort(key=lambda found: (found.rank, found.place))
        for found in line:
            yield found
        return
    waiting = {
        found.place: found
        async for found in walk(look, (f"open:{mailbox}", "place"), bodies=False)
        if found.state == "pending"
    }
    places = delivery_order(
        (found.rank, place, found.text("thread") if found.raw("threaded") else "")
        for place, found in waiting.items()
    )
    ids = tuple(waiting[place].id for place in places[:limit])
    async for found in _by_ids(look, ids, listens=False):
        yield found


def stats(answer: list[Any], now: int) -> tuple[str, MailboxStats]:
    """The counts of a mailbox."""
    name, seen, total, scheduled, dead, oldest, *pending = answer
    waiting = dict(zip(PRIORITIES, pending, strict=True))
    ready = sum(pending)
    return name.decode(), MailboxStats(
        pending={**waiting, "all": ready},
        leased=total - scheduled - ready,
        scheduled=scheduled,
        dead=dead,
        oldest_age=None if oldest is None else max(0.0, (now - int(oldest)) / 1000),
        last_seen=None if seen is None else int(seen) / 1000,
    )
