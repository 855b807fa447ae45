"""What a measurement says: values of several rounds, what they are compared with, the goal."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from .text import number, spaced, spread

_HOLDS = {"<": operator.lt, "<=": operator.le, ">=": operator.ge}
_SAID = {None: "", True: "met", False: "MISSED"}


@dataclass(frozen=True)
class Goal:
    """`sign limit`."""

    sign: Literal["<", "<=", ">="]
    limit: float
    unit: str = "x"

    def met(self, values: list[float]) -> bool:
        """Whether their median keeps it."""
        return bool(_HOLDS[self.sign](median(values), self.limit))

    def __str__(self) -> str:
        return f"{self.sign} {number(self.limit)}{spaced(self.unit)}"


def met(goal: Goal | None, values: list[float]) -> bool | None:
    """Whether it is; None without one."""
    return None if goal is None else goal.met(values)


@dataclass(frozen=True)
class Figure:
    """One line of a table; a value for each round. The goal is for the ratios if there are any."""

    name: str
    values: list[float]
    unit: str
    against: str = ""
    ratios: list[float] = field(default_factory=list)
    goal: Goal | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is; None without one."""
        return met(self.goal, self.ratios or self.values)

    def cells(self) -> list[str]:
        """The columns of `HEAD`."""
        return [
            self.name,
            spread(self.values, self.unit),
            self.against,
            spread(self.ratios, "x") if self.ratios else "",
            *judged(self.goal, self.met),
        ]


HEAD = ["what", "median [min..max]", "compared with", "ratio", "goal", ""]


def judged(goal: Goal | None, met: bool | None) -> tuple[str, str]:
    """The last columns of a table."""
    return str(goal or ""), _SAID[met]


@dataclass(frozen=True)
class Table:
    """Samples over time, as text."""

    title: str
    head: list[str]
    rows: list[list[str]]


def compare(
    name: str,
    values: list[float],
    unit: str,
    against: str,
    base: list[float],
    goal: Goal | None = None,
) -> Figure:
    """A figure with the ratio to what was measured in the same rounds."""
    ratios = [ours / theirs for ours, theirs in zip(values, base, strict=True)]
    return Figure(name, values, unit, against, ratios, goal)
