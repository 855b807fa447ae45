"""Many deadlines, set and dropped in any order, found in order."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Timers(Generic[K]):
    """A deadline for each key. A dropped one leaves a gap in the heap, closed now and then."""

    def __init__(self) -> None:
        self._at: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0

    def set(self, key: K, at: float) -> None:
        """Set, or move, the deadline of `key`."""
        self._at[key] = at
        self._count += 1
        # The count breaks ties first come first served, and keeps keys from being compared.
        heapq.heappush(self._heap, (at, self._count, key))
        if len(self._heap) > 2 * len(self._at) + 64:
            self._heap = [entry for entry in self._heap if self._at.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def drop(self, key: K) -> None:
        """Forget the deadline of `key`, if it has one."""
        self._at.pop(key, None)

    def next(self) -> float | None:
        """The earliest deadline."""
        heap = self._heap
        while heap and self._at.get(heap[0][2]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def due(self, now: float, spare: K | None = None) -> Iterator[K]:
        """Each key but `spare` whose deadline has come, in order; it is dropped as it is given."""
        spared: float | None = None
        while (at := self.next()) is not None and at <= now:
            key = heapq.heappop(self._heap)[2]
            del self._at[key]
            if key == spare:
                spared = at
            else:
                yield key
        if spare is not None and spared is not None:
            self.set(spare, spared)
