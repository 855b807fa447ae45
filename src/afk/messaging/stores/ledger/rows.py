"""A delivery in memory, and the shelf of one mailbox."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from operator import itemgetter

from msgspec import Struct

from ...lifecycle import DeadReason, State
from ...records import Body
from ...store import Box, Send


class Entry(Struct, eq=False, gc=False):
    """One delivery. `ready` stands in line; `blocked` stands behind its thread's head.

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
    state: State = "pending"
    ready: bool = False
    blocked: bool = False
    threaded: bool = False
    is_answer: bool = False
    last: bool = False
    lease_end: float = 0.0
    held_until: float = 0.0
    backoff: float = 0.0
    row_until: float = 0.0
    attempt: int = 0
    fence: int = 0
    redrives: int = 0
    ended: int = 0
    leased_at: float | None = None
    settled_at: float | None = None
    reason: DeadReason | None = None
    error: str = ""
    digest: bytes | None = None
    answer: Entry | None = None

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
    )


class Shelf:
    """The open messages of one mailbox: fresh ones in line, returned ones at their old place."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.open: dict[str, Entry] = {}
        self.last_seen: float | None = None
        # With the place it was put at: a redriven message has another, its old one is passed over.
        self._fresh: tuple[deque[tuple[int, Entry]], ...] = tuple(deque() for _ in range(4))
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
        if row.ready:
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
        if row.ready:
            self.add(row)

    @property
    def has_ready(self) -> bool:
        """Whether a claim would take something."""
        return self._ready > 0

    def add(self, row: Entry) -> None:
        """A fresh message, last in line."""
        self._fresh[row.rank].append((row.place, row))
        row.ready = True
        self._ready += 1

    def put_back(self, row: Entry) -> None:
        """A message that was here before, at its old place."""
        if not row.ready:
            heapq.heappush(self._returned[row.rank], (row.place, row))
            row.ready = True
            self._ready += 1

    def in_line(self) -> Iterator[Entry]:
        """What is ready, in the order in which it would be taken."""
        by_place = itemgetter(0)
        for fresh, returned in self._lines:
            before = None
            for entry in heapq.merge(fresh, sorted(returned, key=by_place), key=by_place):
                if _stands(entry) and entry[1] is not before:  # at an old place twice, perhaps
                    before = entry[1]
                    yield before

    def pop(self) -> Entry | None:
        """Take the first ready message; who has left the line is passed over."""
        for fresh, returned in self._lines:
            while fresh or returned:
                if returned and (not fresh or returned[0][0] < fresh[0][0]):
                    entry = heapq.heappop(returned)
                else:
                    entry = fresh.popleft()
                if _stands(entry):
                    row = entry[1]
                    row.ready = False
                    self._ready -= 1
                    return row
        return None

    def withdraw(self, row: Entry) -> None:
        """It is ready no more; the line is cleared of such when they are half of it."""
        if not row.ready:
            return
        row.ready = False
        self._ready -= 1
        if sum(map(len, self._fresh + self._returned)) > 2 * self._ready + 64:
            for fresh in self._fresh:
                kept = [entry for entry in fresh if _stands(entry)]
                fresh.clear()
                fresh.extend(kept)
            for returned in self._returned:
                returned[:] = [entry for entry in returned if _stands(entry)]
                heapq.heapify(returned)


def _stands(entry: tuple[int, Entry]) -> bool:
    place, row = entry
    return row.ready and row.place == place
