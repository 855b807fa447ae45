"""What the goals ask for, next to what one process could reach if its store took no time at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median

from .buses import TITLES
from .races import Race
from .results import Piece
from .text import markdown_table, number

_HEAD = [
    "store",
    "workload",
    "the goals ask for, msgs/s",
    "measured",
    "did all but mailboxes and event loop take nothing",
]
_ABOUT = """\
Goals are ratios to what ran in the same rounds; here they are messages a second, the highest of
each workload. Where the last column is less, no store could keep the goal, however fast: it is the
mailboxes, in one process, in Python.
"""


def limits(workloads: Mapping[str, Piece], profile: Mapping[str, Piece]) -> list[str]:
    """A table of the workloads that were profiled and have a goal; nothing without one."""
    rows = [
        [title, load, number(asked), number(reached), limit]
        for store, title in TITLES.items()
        if store in profile and store in workloads
        for load, limit in _limits(profile[store])
        for asked, reached in _goals(workloads[store].result.races, load)
    ]
    return [_ABOUT, markdown_table(_HEAD, rows) + "\n"] if rows else []


def _limits(piece: Piece) -> Iterator[tuple[str, str]]:
    for table in piece.result.tables:
        yield from ((row[0], row[-1]) for row in table.rows)


def _goals(races: list[Race], load: str) -> Iterator[tuple[float, float]]:
    """Messages a second that a workload's goals ask for, and ours."""
    for race in races:
        if race.load == load:
            asked = [
                each.goal.limit * median(each.values("rate"))
                for each in race.entrants[1:]
                if each.goal is not None
            ]
            if asked:
                yield max(asked), median(race.entrants[0].values("rate"))
