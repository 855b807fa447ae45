"""What a measurement says: values of several rounds, what they are compared with, the goal."""

from __future__ import annotations

import operator
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

_HOLDS = {"<": operator.lt, "<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Goal:
    """`sign limit`, for the median of the ratios if there are any, else of the values."""

    sign: Literal["<", "<=", ">="]
    limit: float
    unit: str = "x"

    def __str__(self) -> str:
        return f"{self.sign} {number(self.limit)}{_space(self.unit)}"


@dataclass(frozen=True)
class Figure:
    """One line of a table; a value for each round."""

    name: str
    values: list[float]
    unit: str
    against: str = ""
    ratios: list[float] = field(default_factory=list)
    goal: Goal | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is; None without one."""
        if self.goal is None:
            return None
        return bool(_HOLDS[self.goal.sign](median(self.ratios or self.values), self.goal.limit))

    def cells(self) -> list[str]:
        """The columns of `HEAD`."""
        verdict = {None: "", True: "met", False: "MISSED"}[self.met]
        return [
            self.name,
            spread(self.values, self.unit),
            self.against,
            spread(self.ratios, "x") if self.ratios else "",
            str(self.goal or ""),
            verdict,
        ]


HEAD = ["what", "median [min..max]", "compared with", "ratio", "goal", ""]


@dataclass(frozen=True)
class Table:
    """Samples over time, as text."""

    title: str
    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Result:
    """What a part found."""

    figures: list[Figure]
    tables: list[Table] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def updated(self, other: Result) -> Result:
        """What the other found, and of this what it did not look at; the order stays."""
        figures = {(figure.name, figure.against): figure for figure in self.figures}
        figures |= {(figure.name, figure.against): figure for figure in other.figures}
        tables = {table.title: table for table in [*self.tables, *other.tables]}
        return Result([*figures.values()], [*tables.values()])

    @classmethod
    def load(cls, plain: dict[str, Any]) -> Result:
        """What `plain` gave."""
        figures = [
            Figure(**{**each, "goal": each["goal"] and Goal(**each["goal"])})
            for each in plain["figures"]
        ]
        return cls(figures, [Table(**table) for table in plain["tables"]])


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


def number(value: float) -> str:
    """Three digits that count, thousands set apart."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(values: list[float], unit: str) -> str:
    """Median [min..max]."""
    text = f"{number(median(values))}{_space(unit)}"
    if len(values) > 1:
        text += f" [{number(min(values))}..{number(max(values))}]"
    return text


def _space(unit: str) -> str:
    return unit if unit == "x" else f" {unit}"


def text_table(head: list[str], rows: list[list[str]]) -> str:
    """Columns set apart by spaces, as wide as they need be."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """The same for a document."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
