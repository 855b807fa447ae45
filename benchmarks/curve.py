"""What a message costs at several points of something that grows."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from .text import number, spread

FLAT = 1.3
"""What costs at most so many times as much as at the first point is called flat."""
CURVE = ["store", "at", "µs a message, median [min..max]", "CPU µs", "over the first", ""]


@dataclass(frozen=True)
class Point:
    """At so much of it: microseconds of a message, and of the processor, for each round."""

    at: int
    cost: list[float]
    cpu: list[float]


@dataclass(frozen=True)
class Curve:
    """What grows, in which store. flat: whether it should not matter."""

    grows: str
    store: str
    points: list[Point]
    flat: bool = True

    @property
    def name(self) -> str:
        """Which of all."""
        return f"{self.grows}: {self.store}"

    @property
    def steep(self) -> bool:
        """Whether it should be flat and is not."""
        return self.flat and any(median(self.ratios(point)) > FLAT for point in self.points)

    def ratios(self, point: Point) -> list[float]:
        """Over the first point's, in the same rounds."""
        pairs = zip(point.cost, self.points[0].cost, strict=True)
        return [here / first for here, first in pairs]

    def rows(self) -> list[list[str]]:
        """The columns of `CURVE`."""
        return [self._row(point) for point in self.points]

    def _row(self, point: Point) -> list[str]:
        ratios = self.ratios(point)
        first = point is self.points[0]
        steep = self.flat and median(ratios) > FLAT
        return [
            self.store,
            f"{point.at:,}",
            spread(point.cost),
            number(median(point.cpu)),
            "" if first else spread(ratios, "x"),
            "" if first or not self.flat else "NOT FLAT" if steep else "flat",
        ]
