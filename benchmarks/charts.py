"""Charts as SVG, without a background, in colours that can be read on a light and a dark page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median
from xml.sax.saxutils import escape

from .buses import TITLES
from .curve import Curve
from .races import Entrant, Race
from .text import number

TEXT = "#737d8c"
OURS = "#2f81d8"
COLOURS = {
    "memory": "#a06bdc",
    "sqlite": "#2f81d8",
    "redis": "#e0524a",
    "postgres": "#1c9366",
    "nats": "#b8740a",
    "nats_synced": "#c2589b",
}
_WIDTH = 760
_ROW, _GAP = 17, 30
_LEFT, _RIGHT = 300, 110
"""Room for the names of bars, and for what stands behind them."""
_TOP, _HEIGHT = 40, 300
_MARGIN, _NAMES = 70, 110
"""Room for the marks of the upright axis, and for the names of lines."""


def curves_chart(title: str, curves: Sequence[Curve]) -> str:
    """What a message costs over what grows: a line for each store, cost as a logarithm."""
    steps = sorted({point.at for curve in curves for point in curve.points})
    costs = [median(point.cost) for curve in curves for point in curve.points]
    scale = _Scale(min(costs), max(costs))
    right = _WIDTH - _NAMES
    places = {
        step: _MARGIN + 10 + (right - _MARGIN - 20) * place / max(1, len(steps) - 1)
        for place, step in enumerate(steps)
    }
    parts = [_text(_MARGIN, 20, title, bold=True)]
    for mark in scale.marks():
        y = scale.y(mark)
        parts += [_line(_MARGIN, y, right, y, 0.3), _text(_MARGIN - 8, y + 4, _time(mark), "end")]
    floor = _TOP + _HEIGHT
    parts += [_text(x, floor + 22, f"{step:,}", "middle") for step, x in places.items()]
    for curve in curves:
        dots = [(places[point.at], scale.y(median(point.cost))) for point in curve.points]
        parts += _curve(dots, COLOURS[curve.store])
    ends = {curve.store: scale.y(median(curve.points[-1].cost)) for curve in curves}
    for store, y in _apart(ends).items():
        parts.append(_text(right + 8, y + 4, TITLES[store], colour=COLOURS[store], bold=True))
    return _svg(parts, floor + 36)


def races_chart(title: str, races: Sequence[Race]) -> str:
    """A bar for each who ran a workload; the longest of a workload fills the width."""
    parts = [_text(0, 18, title, bold=True)]
    y = 26.0
    for race in races:
        y += _GAP
        unit = "µs, less is better" if race.by == "p50" else "msgs/s"
        parts.append(_text(0, y - 8, f"{race.load} ({unit})", bold=True))
        longest = max(max(each.values(race.by)) for each in race.entrants)
        for entrant in race.entrants:
            parts += _bar(entrant, race.by, longest, y, entrant is race.entrants[0])
            y += _ROW
    return _svg(parts, y + 10)


class _Scale:
    """Costs from the bottom to the top, as logarithms, whole decades."""

    def __init__(self, least: float, most: float) -> None:
        self._low = math.floor(math.log10(least))
        self._high = max(self._low + 1, math.ceil(math.log10(most)))

    def y(self, cost: float) -> float:
        share = (math.log10(cost) - self._low) / (self._high - self._low)
        return _TOP + _HEIGHT * (1 - share)

    def marks(self) -> Iterator[float]:
        for power in range(self._low, self._high + 1):
            yield 10.0**power


def _apart(ends: dict[str, float]) -> dict[str, float]:
    """Names beside the ends of their lines, none upon another."""
    placed: dict[str, float] = {}
    last = -math.inf
    for store, y in sorted(ends.items(), key=lambda item: item[1]):
        last = placed[store] = max(y, last + 15)
    return placed


def _curve(dots: list[tuple[float, float]], colour: str) -> list[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
    line = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    return [line, *[f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in dots]]


def _bar(entrant: Entrant, by: str, longest: float, y: float, ours: bool) -> list[str]:
    """With a whisker from the least round to the greatest."""
    room = _WIDTH - _LEFT - _RIGHT
    values = entrant.values(by)
    least, middle, most = (room * of(values) / longest for of in (min, median, max))
    colour = OURS if ours else TEXT
    shade = 1 if ours else 0.6
    height = _ROW - 5
    return [
        _text(_LEFT - 8, y + 10, entrant.who, "end", colour, bold=ours),
        f'<rect x="{_LEFT}" y="{y:.1f}" width="{max(1, middle):.1f}" height="{height}"'
        f' fill="{colour}" fill-opacity="{shade}"/>',
        _line(_LEFT + least, y + height / 2, _LEFT + most, y + height / 2),
        _text(_LEFT + most + 8, y + 10, number(median(values)), colour=colour),
    ]


def _time(micros: float) -> str:
    if micros >= 1e6:
        return f"{micros / 1e6:g} s"
    return f"{micros / 1e3:g} ms" if micros >= 1e3 else f"{micros:g} µs"


def _line(x1: float, y1: float, x2: float, y2: float, opacity: float = 1) -> str:
    path = f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"
    return f'<path d="{path}" stroke="{TEXT}" stroke-opacity="{opacity:g}"/>'


def _text(
    x: float, y: float, text: str, anchor: str = "start", colour: str = TEXT, bold: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {place}{weight}>{escape(text)}</text>"


def _svg(parts: list[str], height: float) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}"'
        f' font-family="system-ui, sans-serif" font-size="12">'
    )
    return "\n".join([head, *parts, "</svg>", ""])
