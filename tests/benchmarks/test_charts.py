"""The charts are well-formed, show what was measured, and can be read on light and dark pages."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import pytest

from benchmarks import charts
from benchmarks.buses import TITLES
from benchmarks.curve import Curve, Point
from benchmarks.races import Entrant, Race

SVG = "{http://www.w3.org/2000/svg}"
PAGES = ("#ffffff", "#0d1117")
"""A light one and a dark one."""


def entrant(who: str, rate: float) -> Entrant:
    return Entrant(who, [{"rate": rate, "p50": rate}])


def races() -> str:
    entrants = [entrant("afk.messaging", 50.0), entrant("a <peer>", 100.0)]
    return charts.races_chart("Redis", [Race("W1", "redis", "rate", entrants)])


def curves() -> str:
    def curve(store: str, *costs: float) -> Curve:
        points = [Point(10**place, [cost], [1.0]) for place, cost in enumerate(costs)]
        return Curve("agents", store, points)

    return charts.curves_chart("Agents", [curve("redis", 90.0, 99.0), curve("nats", 80.0, 100.0)])


def texts(svg: str) -> dict[str, ElementTree.Element]:
    return {str(each.text): each for each in ElementTree.fromstring(svg).iter(f"{SVG}text")}


def test_bars_are_as_long_as_what_they_say() -> None:
    ours, theirs = ElementTree.fromstring(races()).iter(f"{SVG}rect")
    assert float(theirs.attrib["width"]) == pytest.approx(2 * float(ours.attrib["width"]), rel=0.01)
    assert {"afk.messaging", "a <peer>", "50", "100"} <= set(texts(races()))


def test_each_store_has_a_line_and_its_name_beside_it() -> None:
    root = ElementTree.fromstring(curves())
    assert len(list(root.iter(f"{SVG}polyline"))) == 2
    assert {"Redis", "NATS", "1", "10", "10 µs", "100 µs"} <= set(texts(curves()))


def test_names_of_lines_do_not_cover_each_other() -> None:
    named = texts(curves())
    heights = sorted(float(named[store].attrib["y"]) for store in ("Redis", "NATS"))
    assert all(b - a >= 12 for a, b in itertools.pairwise(heights))


def test_nothing_stands_outside() -> None:
    for svg in (races(), curves()):
        root = ElementTree.fromstring(svg)
        width, height = map(float, root.attrib["viewBox"].split()[2:])
        for each in texts(svg).values():
            assert 0 <= float(each.attrib["x"]) <= width
            assert 0 <= float(each.attrib["y"]) <= height


def test_every_store_has_a_colour_that_can_be_read_on_both_pages() -> None:
    assert set(charts.COLOURS) == set(TITLES)
    for colour in [charts.TEXT, charts.OURS, *charts.COLOURS.values()]:
        assert re.fullmatch("#[0-9a-f]{6}", colour)
        assert min(contrast(colour, page) for page in PAGES) > 3.5, colour


def contrast(one: str, other: str) -> float:
    """As the accessibility guidelines count it."""
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
