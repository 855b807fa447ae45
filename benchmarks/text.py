"""Figures as text."""

from __future__ import annotations

from statistics import median


def number(value: float) -> str:
    """Three digits that count, thousands set apart."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(values: list[float], unit: str = "") -> str:
    """Median [min..max]."""
    text = f"{number(median(values))}{spaced(unit)}"
    if len(values) > 1:
        text += f" [{number(min(values))}..{number(max(values))}]"
    return text


def spaced(unit: str) -> str:
    """What follows a number: `x` does at once."""
    return f" {unit}" if unit not in {"", "x"} else unit


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
