"""What the tables of the benchmarks say, and that what is kept is read back as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.curve import Curve, Point
from benchmarks.figures import Figure, Goal, Table, compare
from benchmarks.parts import named
from benchmarks.races import Entrant, Race
from benchmarks.report import document
from benchmarks.results import Piece, Result
from benchmarks.text import markdown_table, number, spread, text_table


def answers(*rates: float, server: float | None = None) -> list[dict[str, float | None]]:
    return [
        {
            "rate": rate,
            "p50": 1e6 / rate,
            "p99": 2e6 / rate,
            "cpu": 40.0,
            "server": server,
            "rss": 30.0,
        }
        for rate in rates
    ]


def race(by: str = "rate", goal: Goal | None = None) -> Race:
    theirs = Entrant("a peer", answers(200, 400, 200, server=7.0), goal)
    return Race(
        "W1, receive()", "redis", by, [Entrant("afk.messaging", answers(100, 100, 50)), theirs]
    )


def test_numbers_have_three_digits_that_count() -> None:
    assert [number(value) for value in (0.01234, 1.5, 99.99, 1234.5, 12)] == [
        *("0.0123", "1.5", "100", "1,234", "12"),
    ]
    assert spread([3, 1, 2], "ms") == "2 ms [1..3]"
    assert spread([2], "x") == "2x"


def test_tables_have_all_cells() -> None:
    assert text_table(["a", "b"], [["long", ""], ["x", "y"]]).splitlines() == [
        *("a     b", "----  -", "long", "x     y"),
    ]
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_a_goal_is_for_the_ratios_if_there_are_any() -> None:
    assert Figure("f", [3.0], "ms", goal=Goal("<=", 2, "ms")).met is False
    assert compare("f", [3.0], "ms", "other", [2.0], Goal("<=", 2)).met is True
    assert Figure("f", [3.0], "ms").met is None


def test_a_race_shows_ours_first_and_the_ratio_to_each_other() -> None:
    ours, theirs = race(goal=Goal(">=", 1)).rows()
    assert ours[:5] == ["W1, receive()", "afk.messaging", "100 [50..100]", "10,000", "20,000"]
    assert ours[5:] == ["40", "", "30", "", "", ""]
    assert theirs[0] == ""
    assert theirs[6:] == ["7", "30", "0.25x [0.25..0.5]", ">= 1x", "MISSED"]


@pytest.mark.parametrize("by", ["rate", "p50"])
def test_who_is_slower_says_so(by: str) -> None:
    slow = race(by)
    fast = Race("W1", "redis", by, slow.entrants[::-1])
    assert slow.slower
    assert not fast.slower
    assert slow.best is slow.entrants[1]


def test_a_curve_that_is_not_flat_says_where() -> None:
    points = [Point(10, [5.0, 6.0], [1.0, 1.0]), Point(100, [5.0, 6.0], [1.0, 1.0])]
    steep = Point(1000, [10.0, 12.0], [1.0, 1.0])
    assert not Curve("agents", "nats", points).steep
    assert Curve("agents", "nats", [*points, steep]).steep
    assert not Curve("bytes", "nats", [*points, steep], flat=False).steep
    assert [row[-1] for row in Curve("agents", "nats", [*points, steep]).rows()] == [
        *("", "flat", "NOT FLAT"),
    ]


def test_what_is_kept_is_read_back_store_by_store(tmp_path: Path) -> None:
    found = Result(
        [Figure("f", [1.0], "ms", goal=Goal("<", 2, "ms"))],
        races=[race(goal=Goal(">=", 2))],
        curves=[Curve("agents", "redis", [Point(10, [5.0], [1.0])])],
    )
    piece = Piece(quick=True, took=1.0, on=results.machine(), result=found)
    results.keep("workloads", "redis", piece, tmp_path)
    results.keep("workloads", "nats", piece, tmp_path)
    assert results.read("workloads", tmp_path) == {"redis": piece, "nats": piece}
    assert results.read("curves", tmp_path) == {}
    results.forget("workloads", ["redis"], tmp_path)
    assert results.read("workloads", tmp_path) == {"nats": piece}


def test_the_page_shows_every_piece_and_its_charts() -> None:
    found = Result(
        races=[race(goal=Goal(">=", 2))],
        curves=[Curve("agents", "redis", [Point(10, [5.0], [1.0]), Point(20, [9.0], [1.0])])],
    )
    piece = Piece(quick=True, took=60.0, on=results.machine(), result=found)
    page, charts = document({name: {"redis": piece} for name in ("workloads", "curves")}, "shown")
    assert set(charts) == {"workloads-redis.svg", "curves-agents.svg"}
    assert all(f"](shown/{name})" in page for name in charts)
    assert "| Redis | 100 (0.25x a peer) |" in page
    assert "- agents: redis: not looked into yet." in page


def test_the_page_says_what_no_store_could_reach() -> None:
    on = results.machine()
    head = ["workload", "mailboxes", "store", "event loop"]
    table = Table("Redis, µs a message", head, [["W1, receive()", "1,250", "7,000", "100"]])
    workloads = Piece(True, 60.0, on, Result(races=[race(goal=Goal(">=", 2))]))
    profile = Piece(True, 60.0, on, Result(tables=[table]))
    page, _ = document({"workloads": {"redis": workloads}, "profile": {"redis": profile}}, "shown")
    line = "| Redis | W1, receive() | 2,500 | 10,000 | 1,350 | 5,000 | 6,350 | out of reach |"
    assert line in page
    without, _ = document({"profile": {"redis": profile}}, "shown")
    assert "goals ask for" not in without


def test_words_pick_names() -> None:
    assert named("W1b, serve()", ())
    assert named("W1b, serve()", ("w1",))
    assert not named("redis-py, streams", ("none",))
