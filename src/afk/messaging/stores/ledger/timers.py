"""Many deadlines, set and dropped in any order, found in order."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from .rows import Entry

_NEVER = float("inf")


class Timers:
    """A deadline for each row. A dropped one leaves a gap in the heap, closed now and then.

    Equal deadlines come in the order of the rows' places: what is decided depends on the rows
    alone, not on the history of this object.
    first: no deadline is before this, so that most of those who would ask for what is due need not.
    """

    def __init__(self) -> None:
        self.first = _NEVER
        self._at: dict[Entry, float] = {}
        self._heap: list[tuple[float, int, int, Entry]] = []
        self._count = 0

    def set(self, row: Entry, at: float) -> None:
        """Set, or move, the deadline of a row."""
        self._at[row] = at
        self._count = count = self._count + 1  # keeps rows from being compared
        heap = self._heap
        heappush(heap, (at, row.place, count, row))
        self.first = heap[0][0]
        if count % 64 == 0 and len(heap) > 2 * len(self._at) + 64:
            self._heap = [entry for entry in heap if self._at.get(entry[3]) == entry[0]]
            heapify(self._heap)

    def drop(self, row: Entry) -> None:
        """Forget the deadline of a row, if it has one."""
        self._at.pop(row, None)

    def at(self, row: Entry) -> float | None:
        """The deadline of a row."""
        return self._at.get(row)

    def next(self) -> float:
        """The earliest deadline; infinity if there is none."""
        heap = self._heap
        while heap and self._at.get(heap[0][3]) != heap[0][0]:
            heappop(heap)
        self.first = heap[0][0] if heap else _NEVER
        return self.first

    def due(self, now: float, spare: Entry | None = None) -> Iterator[Entry]:
        """Each row but `spare` whose deadline has come, in order; it is dropped as it is given."""
        spared: float | None = None
        while (at := self.next()) <= now:
            row = heappop(self._heap)[3]
            del self._at[row]
            if row is spare:
                spared = at
            else:
                yield row
        if spare is not None and spared is not None:
            self.set(spare, spared)
