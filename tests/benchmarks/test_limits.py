"""What no store could do without: which steps are counted, and what is out of reach for them."""

from __future__ import annotations

import pytest

from benchmarks.figures import Goal, Table
from benchmarks.limits import limits
from benchmarks.races import Entrant, Race
from benchmarks.results import Machine, Piece, Result

MACHINE = Machine(2, "Linux", "a processor", "3.11", "3.40", {}, "2026-01-01")


def piece(**found: list[object]) -> Piece:
    return Piece(False, 1.0, MACHINE, Result(**found))  # type: ignore[arg-type]


def entrant(who: str, rate: float, p50: float, goal: Goal | None = None) -> Entrant:
    return Entrant(who, [{"rate": rate, "p50": p50, "cpu": None, "server": None}], goal)


@pytest.mark.parametrize(("wanted", "said"), [(0.8, "met"), (1.2, ""), (1.7, "out of reach")])
def test_a_step_is_one_beside_which_others_go_on(wanted: float, said: str) -> None:
    """sqlite3's own takes 100 µs, aiosqlite's 300: with 300 of mailboxes that makes 600."""
    plain = entrant("sqlite3, one commit a step", 1000, 100, Goal(">=", wanted))
    entrants = [entrant("afk.messaging", 900, 1), plain, entrant("aiosqlite", 500, 300)]
    workloads = piece(races=[Race("W1, receive()", "sqlite", "rate", entrants)])
    head = ["workload", "mailboxes", "event loop"]
    profile = piece(tables=[Table("time", head, [["W1, receive()", "200", "100"]])])
    _, table = limits({"sqlite": workloads}, {"sqlite": profile})
    cells = [cell.strip() for cell in table.splitlines()[-1].strip("|").split("|")]
    asked = f"{round(1000 / wanted):,}"
    assert cells == ["SQLite", "W1, receive()", asked, "1,111", "300", "300", "600", said]
