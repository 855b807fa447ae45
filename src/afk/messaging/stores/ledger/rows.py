"""A delivery in memory, and the shelf of one mailbox."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from operator import attrgetter

import msgspec
from msgspec import Struct

from ...lifecycle import DeadReason, State
from ...records import Body
from ...store import Box, Send

OUT, FRESH, BACK, GONE = range(4)
"""Where in its shelf's lines an entry stands: nowhere; with those that were never claimed; with
those that came back; nowhere, but the line of the fresh ones has not come past it yet."""


class Past(Struct, gc=False):
    """What has become of a delivery: nothing yet of most that wait, which share `UNTOUCHED`."""

    attempt: int = 0
    fence: int = 0
    redrives: int = 0
    last: bool = False
    lease_end: float = 0.0
    held_until: float = 0.0
    backoff: float = 0.0
    leased_at: float | None = None
    settled_at: float | None = None
    row_until: float = 0.0
    ended: int = 0
    reason: DeadReason | None = None
    error: str = ""
    digest: bytes | None = None
    answer: Entry | None = None


class _Nothing(Past, frozen=True, gc=False):  # type: ignore[misc]  # msgspec's may
    """Nothing can be written into it."""


UNTOUCHED: Past = _Nothing()


class Entry(Struct, eq=False, gc=False):
    """One delivery. `blocked` stands behind its thread's head.

    Outside the garbage collector's reach, which there may be a million of these to walk: nothing
    that one of them holds leads back to it.
    """

    id: str
    body: Body | None
    mailbox: str = ""
    sender: str = ""
    rank: int = 0
    key: str | None = None
    thread: str = ""
    chain: str | None = None
    awaited: bool = False
    ttl: float | None = None
    retention: float = 0.0
    history: float = 0.0
    history_max: int = 0
    place: int = 0
    accepted_at: float = 0.0
    due: float = 0.0
    expires: float | None = None
    past: Past = msgspec.field(default_factory=lambda: UNTOUCHED)
    state: State = "pending"
    line: int = OUT
    blocked: bool = False
    threaded: bool = False
    is_answer: bool = False

    def lived(self) -> Past:
        """Its past, to write in."""
        if self.past is UNTOUCHED:
            self.past = Past()
        return self.past

    @property
    def ready(self) -> bool:
        """Whether it stands in line."""
        return self.line in (FRESH, BACK)

    @property
    def asks(self) -> bool:
        """Whether it is a request whose answer is awaited."""
        return self.awaited and not self.is_answer

    @property
    def kept(self) -> bool:
        """Whether key, digest or result must outlive the body."""
        return self.key is not None or self.awaited or self.is_answer


def entry(send: Send, place: int, now: float) -> Entry:
    """What was sent, accepted now."""
    return Entry(
        send.id,
        send.body,
        send.mailbox,
        send.sender,
        send.rank,
        send.key,
        send.thread,
        send.chain,
        send.awaited,
        send.ttl,
        send.retention,
        send.history,
        send.history_max,
        place,
        now,
        # Without a delay it is due whatever the clock says later: a clock may be set back.
        now + send.delay if send.delay else 0.0,
        None if send.ttl is None else now + send.ttl,
        UNTOUCHED,
    )


class Shelf:
    """The open messages of one mailbox: fresh ones in line, returned ones at their old place."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.open: dict[str, Entry] = {}
        self.last_seen: float | None = None
        self._fresh: tuple[deque[Entry], ...] = tuple(deque() for _ in range(4))
        # With the place it was put at: a redriven message has another, its old one is passed over.
        self._returned: tuple[list[tuple[int, Entry]], ...] = ([], [], [], [])
        self._lines = tuple(zip(self._fresh, self._returned, strict=True))
        self._ready = 0
        self._threads: dict[str, deque[Entry]] = {}

    def enter(self, row: Entry) -> bool:
        """Count an open message in; False if it must wait behind its thread's head."""
        self.open[row.id] = row
        row.threaded = self.box.ordered and bool(row.thread)
        if not row.threaded:
            return True
        thread = self._threads.setdefault(row.thread, deque())
        thread.append(row)
        return len(thread) == 1

    def leave(self, row: Entry) -> Entry | None:
        """Count a message out; what now heads its thread, if that had waited for it."""
        if self.open.pop(row.id, None) is None:
            return None
        self.withdraw(row)
        if not row.threaded:
            return None
        thread = self._threads[row.thread]
        thread.remove(row)
        if not thread:
            del self._threads[row.thread]
            return None
        return thread[0] if thread[0].blocked else None

    def restore(self, row: Entry) -> None:
        """Take in an open message as it stood elsewhere; to be called in the order of places."""
        self.open[row.id] = row
        if row.threaded:
            self._threads.setdefault(row.thread, deque()).append(row)
        if row.line == FRESH:
            self.add(row)
        elif row.line == BACK:
            row.line = OUT
            self.put_back(row)

    @property
    def has_ready(self) -> bool:
        """Whether a claim would take something."""
        return self._ready > 0

    def add(self, row: Entry) -> None:
        """A fresh message, last in line."""
        line = self._fresh[row.rank]
        if row.line == GONE:  # redriven, and at its old place still
            with suppress(ValueError):  # or that was on the shelf of an earlier registration
                line.remove(row)
        line.append(row)
        row.line = FRESH
        self._ready += 1

    def put_back(self, row: Entry) -> None:
        """A message that was here before, at its old place."""
        if not row.ready:
            heapq.heappush(self._returned[row.rank], (row.place, row))
            row.line = BACK
            self._ready += 1

    def in_line(self) -> Iterator[Entry]:
        """What is ready, in the order in which it would be taken."""
        by_place = attrgetter("place")
        for fresh, returned in self._lines:
            before = None
            first = (row for row in fresh if row.line == FRESH)
            back = sorted((entry[1] for entry in returned if _stands(entry)), key=by_place)
            for row in heapq.merge(first, back, key=by_place):
                if row is not before:  # at an old place twice, perhaps
                    before = row
                    yield row

    def pop(self) -> Entry | None:
        """Take the first ready message; who has left the line is passed over."""
        for fresh, returned in self._lines:
            while fresh or returned:
                if returned and (not fresh or returned[0][0] < fresh[0].place):
                    entry = heapq.heappop(returned)
                    row, stands = entry[1], _stands(entry)
                else:
                    row = fresh.popleft()
                    stands = row.line == FRESH
                    if row.line == GONE:
                        row.line = OUT
                if stands:
                    row.line = OUT
                    self._ready -= 1
                    return row
        return None

    def withdraw(self, row: Entry) -> None:
        """It is ready no more, if it was; the line is cleared of such when they are half of it."""
        if not row.ready:
            return
        row.line = GONE if row.line == FRESH else OUT
        self._ready -= 1
        if sum(map(len, self._fresh + self._returned)) > 2 * self._ready + 64:
            for fresh in self._fresh:
                kept = []
                for each in fresh:
                    if each.line == FRESH:
                        kept.append(each)
                    elif each.line == GONE:
                        each.line = OUT
                fresh.clear()
                fresh.extend(kept)
            for returned in self._returned:
                returned[:] = [entry for entry in returned if _stands(entry)]
                heapq.heapify(returned)


def _stands(entry: tuple[int, Entry]) -> bool:
    place, row = entry
    return row.line == BACK and row.place == place
