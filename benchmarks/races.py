"""A workload that several ran in turns: the library first, then its limit and its peers."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from .figures import Goal, judged, met
from .text import number, spread

OURS = "afk.messaging"
RACE = ["workload", "who", "msgs/s, median [min..max]", "p50 µs", "p99 µs", "CPU µs", "server µs"]
RACE += ["RSS MB", "ours over its", "goal", ""]
_MEDIANS = ("p50", "p99", "cpu", "server", "rss")


@dataclass(frozen=True)
class Entrant:
    """Who ran, and a meter's answer for each round. goal: for the library's ratio to it."""

    who: str
    answers: list[dict[str, float | None]]
    goal: Goal | None = None

    def values(self, name: str) -> list[float]:
        """One for each round, of those that have it."""
        return [value for each in self.answers if (value := each[name]) is not None]


@dataclass(frozen=True)
class Race:
    """A workload on a store. by: which answer is compared, `rate` or `p50`."""

    load: str
    store: str
    by: str
    entrants: list[Entrant]

    def ratios(self, other: Entrant) -> list[float]:
        """Ours over the other's, in the same rounds."""
        ours = self.entrants[0].values(self.by)
        pairs = zip(ours, other.values(self.by), strict=True)
        return [mine / its for mine, its in pairs]

    @property
    def name(self) -> str:
        """Which of all."""
        return f"{self.store}: {self.load}"

    @property
    def slower(self) -> bool:
        """Whether another was faster, or a goal was missed."""
        others = [(each, self.ratios(each)) for each in self.entrants[1:]]
        return any(
            met(each.goal, ratios) is False or (median(ratios) > 1) == (self.by == "p50")
            for each, ratios in others
        )

    @property
    def best(self) -> Entrant | None:
        """The fastest of the others."""
        ordered = sorted(self.entrants[1:], key=lambda each: median(each.values(self.by)))
        return ordered[0 if self.by == "p50" else -1] if ordered else None

    def rows(self) -> list[list[str]]:
        """The columns of `RACE`."""
        return [self._row(entrant, entrant is self.entrants[0]) for entrant in self.entrants]

    def _row(self, entrant: Entrant, ours: bool) -> list[str]:
        medians = [entrant.values(name) for name in _MEDIANS]
        ratios = [] if ours else self.ratios(entrant)
        return [
            self.load if ours else "",
            entrant.who,
            spread(entrant.values("rate")),
            *[number(median(values)) if values else "" for values in medians],
            spread(ratios, "x") if ratios else "",
            *judged(entrant.goal, met(entrant.goal, ratios)),
        ]
