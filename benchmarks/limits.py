"""What the goals ask for, next to what no store of ours could do without."""

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
    "the goals ask for",
    "measured",
    "mailboxes and event loop",
    "steps that wait for each other",
    "the least",
    "",
]
_ABOUT = """\
Goals are ratios to what ran in the same rounds; here they are µs a message, of each workload the
least that is asked for. `The least` is what would be left if a store took no processor time, and
waited for nothing but steps that have to follow each other (in W1 one a message, in W2 two), each
as short as the shortest that a peer in W1 waits for, of those that do not block the event loop: on
SQLite that is aiosqlite, which has a thread of its own for the file as we have. Where that is more
than the goals ask for, no store could keep them, however fast: it is the mailboxes, in one process,
in Python.
"""
_STEPS = {"W1, receive()": 1, "W2, p50": 2}
_BLOCKING = ("sqlite3", "huey", "persist-queue")
"""Peers, by how their names begin, that stop all else in their process while a file is synced."""
_ASIDE = ("memory",)
"""Stores whose steps take no time worth the name."""


def limits(workloads: Mapping[str, Piece], profile: Mapping[str, Piece]) -> list[str]:
    """A table of the workloads that were profiled and have a goal; nothing without one."""
    rows = [
        row
        for store, title in TITLES.items()
        if store in profile and store in workloads
        for row in _rows(store, title, workloads[store].result.races, profile[store])
    ]
    return [_ABOUT, markdown_table(_HEAD, rows) + "\n"] if rows else []


def _rows(store: str, title: str, races: list[Race], profile: Piece) -> Iterator[list[str]]:
    step = 0.0 if store in _ASIDE else _step(races)
    for load, mailboxes in _mailboxes(profile):
        waits = _STEPS.get(load, 0) * step
        for asked, reached in _goals(races, load):
            least = mailboxes + waits
            said = "out of reach" if least > asked else "met" if reached <= asked else ""
            figures = [asked, reached, mailboxes, waits, least]
            yield [title, load, *map(number, figures), said]


def _mailboxes(piece: Piece) -> Iterator[tuple[str, float]]:
    """µs of each workload."""
    for table in piece.result.tables:
        of = [table.head.index(name) for name in ("mailboxes", "event loop")]
        for row in table.rows:
            yield row[0], sum(float(row[column].replace(",", "")) for column in of)


def _step(races: list[Race]) -> float:
    """The shortest that a peer waits for, of those that wait for each message, and let others go on
    meanwhile."""
    sends = [
        median(each.values("p50"))
        for race in races
        if race.load.startswith("W1,")
        for each in race.entrants[1:]
        if not each.who.startswith(_BLOCKING)
    ]
    return min(sends, default=0.0)


def _goals(races: list[Race], load: str) -> Iterator[tuple[float, float]]:
    """µs a message that a workload's goals ask for, and ours."""
    for race in races:
        if race.load == load:
            asked = [
                each.goal.limit * _took(race, each.values(race.by))
                if race.by == "p50"
                else _took(race, each.values(race.by)) / each.goal.limit
                for each in race.entrants[1:]
                if each.goal is not None
            ]
            if asked:
                yield min(asked), _took(race, race.entrants[0].values(race.by))


def _took(race: Race, values: list[float]) -> float:
    """µs a message."""
    return median(values) if race.by == "p50" else 1e6 / median(values)
