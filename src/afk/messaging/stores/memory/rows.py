"""A delivery in memory, and the shelf of one mailbox."""

from __future__ import annotations

import heapq
from collections import deque

from ...lifecycle import DeadReason, State
from ...records import Body
from ...store import Box, Send


class Entry:
    """One delivery. `blocked` stands behind its thread's head; else `state` is as stored."""

    __slots__ = (
        "accepted_at",
        "answer",
        "attempt",
        "awaited",
        "backoff",
        "blocked",
        "body",
        "chain",
        "counted",
        "digest",
        "due",
        "ended",
        "error",
        "expires",
        "fence",
        "history",
        "history_max",
        "id",
        "is_answer",
        "key",
        "last",
        "lease_end",
        "leased_at",
        "mailbox",
        "place",
        "rank",
        "reason",
        "redrives",
        "retention",
        "row_until",
        "sender",
        "settled_at",
        "settled_fence",
        "state",
        "thread",
        "threaded",
        "ttl",
    )

    def __init__(self, send: Send, place: int, now: float) -> None:
        self.id = send.id
        self.body: Body | None = send.body
        self.mailbox = send.mailbox
        self.sender = send.sender
        self.rank = send.rank
        self.key = send.key
        self.thread = send.thread
        self.chain = send.chain
        self.awaited = send.awaited
        self.ttl = send.ttl
        self.retention = send.retention
        self.history = send.history
        self.history_max = send.history_max
        self.place = place
        self.accepted_at = now
        self.due = now + send.delay
        self.expires = None if send.ttl is None else now + send.ttl
        self.state: State = "pending"
        self.blocked = False
        self.counted = False
        self.threaded = False
        self.is_answer = False
        self.last = False
        self.lease_end = self.backoff = self.row_until = 0.0
        self.attempt = self.fence = self.redrives = self.ended = 0
        self.settled_fence = -1
        self.leased_at: float | None = None
        self.settled_at: float | None = None
        self.reason: DeadReason | None = None
        self.error = ""
        self.digest: bytes | None = None
        self.answer: Entry | None = None

    @property
    def kept(self) -> bool:
        """Whether key, digest or result must outlive the body."""
        return self.key is not None or self.awaited or self.is_answer


class Shelf:
    """The open messages of one mailbox: fresh ones in line, returned ones at their old place."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.size = 0
        self.last_seen: float | None = None
        self._fresh: tuple[deque[Entry], ...] = tuple(deque() for _ in range(4))
        self._returned: tuple[list[tuple[int, Entry]], ...] = ([], [], [], [])
        self._gone = 0
        self._threads: dict[str, deque[Entry]] = {}

    def enter(self, row: Entry) -> bool:
        """Count an open message in; False if it must wait behind its thread's head."""
        self.size += 1
        row.counted = True
        if not self.box.ordered or not row.thread:
            return True
        row.threaded = True
        thread = self._threads.setdefault(row.thread, deque())
        thread.append(row)
        return len(thread) == 1

    def leave(self, row: Entry) -> Entry | None:
        """Count a message out; what now heads its thread, if that had waited for it."""
        self.size -= 1
        row.counted = False
        thread = self._threads.get(row.thread) if self.box.ordered else None
        if thread is None:
            return None
        thread.remove(row)
        if not thread:
            del self._threads[row.thread]
            return None
        return thread[0] if thread[0].blocked else None

    def add(self, row: Entry) -> None:
        """A fresh message, last in line."""
        self._fresh[row.rank].append(row)

    def put_back(self, row: Entry) -> None:
        """A message that was here before, at its old place."""
        heapq.heappush(self._returned[row.rank], (row.place, row))

    def pop(self) -> Entry | None:
        """Take the first ready message; what has ended meanwhile is passed over."""
        for fresh, returned in zip(self._fresh, self._returned, strict=True):
            while fresh or returned:
                if returned and (not fresh or returned[0][0] < fresh[0].place):
                    row = heapq.heappop(returned)[1]
                else:
                    row = fresh.popleft()
                if row.state == "pending" and not row.blocked:
                    return row
                self._gone -= 1
        return None

    def drop(self) -> None:
        """Note that a ready message ended in line; the line is cleared when half is gone."""
        self._gone += 1
        if self._gone > 64 and self._gone * 2 > sum(map(len, self._fresh + self._returned)):
            for fresh in self._fresh:
                kept = [row for row in fresh if row.state == "pending"]
                fresh.clear()
                fresh.extend(kept)
            for returned in self._returned:
                returned[:] = [entry for entry in returned if entry[1].state == "pending"]
                heapq.heapify(returned)
            self._gone = 0
