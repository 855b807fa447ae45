"""The results as a document with charts."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from .buses import TITLES
from .charts import curves_chart, races_chart
from .curve import CURVE, Curve
from .figures import HEAD
from .limits import limits
from .races import RACE, Race
from .reasons import ABOUT, DURABILITY, GROWS, WHY
from .results import Machine, Piece
from .text import markdown_table, number, spread

Parts = Mapping[str, Mapping[str, Piece]]
_INTRO = """\
# Performance

What the library takes, next to its peers and to what its stores can do at most. This page is
written by

```console
$ make bench REPORT=docs/performance.md
```

from the files in `benchmarks/results`, which keep what was measured: the command goes on with what
is missing. {commands}.

The machine: {cores} cores ({processor}), {system}, Python {python}, SQLite {sqlite}, a local disk;
{date}. Its absolute numbers drift with what else it does, so read the ratios: what is compared ran
in turns, in the same rounds, each in a process of its own. A figure is the median of the rounds,
with the least and the greatest in brackets. Everything is at its default (keys, leases, history,
`disk` durability) unless a line says otherwise; a message is a dict of about 200 bytes as JSON.

Installed for it: {packages}.
"""
_COMMANDS = """\
`FRESH=1` forgets all first; `STORE=redis` is only this store, `PART=curves` only this
part, `SIZE=large` more messages, rounds and points; without `REPORT` nothing is kept, and
`WORKLOAD=W2 PEERS=streams` picks some of them"""


def document(parts: Parts, folder: str) -> tuple[str, dict[str, str]]:
    """The text, and the charts it shows, by their names in `folder`."""
    pieces = [piece for part in parts.values() for piece in part.values()]
    charts: dict[str, str] = {}
    text = [_intro(max(pieces, key=lambda piece: piece.on.date).on)]
    if "workloads" in parts:
        text.append(_short(parts["workloads"]))
    for name, part in parts.items():
        title, about = ABOUT[name]
        text.append(f"## {title}\n\n`make bench PART={name}`. {about}\n")
        text += _sections(name, part, folder, charts)
        if name == "profile":
            text += limits(parts.get("workloads", {}), part)
        text.append(_how(part))
    return "\n".join(text), charts


def _intro(on: Machine) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in on.packages.items())
    return _INTRO.format(
        commands=_COMMANDS,
        cores=on.cores,
        processor=on.processor,
        system=on.system,
        python=on.python,
        sqlite=on.sqlite,
        date=on.date,
        packages=packages,
    )


def _short(part: Mapping[str, Piece]) -> str:
    """One line a store: what it does, and how much that is of what the fastest other does."""
    loads = ("W1", "W1b", "W2", "W3", "W4", "W5")
    rows = []
    for store, piece in part.items():
        first = {race.load.partition(",")[0]: race for race in reversed(piece.result.races)}
        rows.append([TITLES[store], *[_cell(first[load]) for load in loads if load in first]])
    head = ["store", *loads]
    rows = [row + [""] * (len(head) - len(row)) for row in rows]
    said = "Messages a second, in W2 µs until the answer; in brackets our ratio to the best other"
    return f"## In short\n\n{said}.\n\n{markdown_table(head, rows)}\n"


def _cell(race: Race) -> str:
    ours = number(median(race.entrants[0].values(race.by)))
    if race.best is None:
        return ours
    return f"{ours} ({number(median(race.ratios(race.best)))}x {race.best.who})"


def _sections(
    name: str, part: Mapping[str, Piece], folder: str, charts: dict[str, str]
) -> list[str]:
    text = []
    for store, piece in part.items():
        if piece.result.races:
            text += _races(store, piece.result.races, folder, charts)
    curves = [curve for piece in part.values() for curve in piece.result.curves]
    for grows in GROWS:
        if some := [curve for curve in curves if curve.grows == grows]:
            text += _curves(grows, some, folder, charts)
    figures = [figure for piece in part.values() for figure in piece.result.figures]
    if figures:
        text.append(markdown_table(HEAD, [figure.cells() for figure in figures]) + "\n")
    for piece in part.values():
        for table in piece.result.tables:
            text += [f"{table.title}:\n", markdown_table(table.head, table.rows) + "\n"]
    missed = [figure.name for figure in figures if figure.met is False]
    return text + _why(name, missed)


def _races(store: str, races: list[Race], folder: str, charts: dict[str, str]) -> list[str]:
    title = TITLES[store]
    chart = f"workloads-{store}.svg"
    charts[chart] = races_chart(f"{title}: {DURABILITY[store]}", races)
    rows = [[*row, DURABILITY[store]] for race in races for row in race.rows()]
    return [
        f"### {title}\n",
        f"![{title}: rates of the workloads]({folder}/{chart})\n",
        markdown_table([*RACE, "a message is"], rows) + "\n",
        *_why("workloads", [race.name for race in races if race.slower]),
    ]


def _curves(grows: str, curves: list[Curve], folder: str, charts: dict[str, str]) -> list[str]:
    chart = f"curves-{grows}.svg"
    charts[chart] = curves_chart(f"Cost of a message over {grows}", curves)
    return [
        f"### {grows.capitalize()}\n",
        f"{GROWS[grows]}\n",
        f"![Cost of a message over {grows}]({folder}/{chart})\n",
        markdown_table(CURVE, [row for curve in curves for row in curve.rows()]) + "\n",
        *_why("curves", [curve.name for curve in curves if curve.steep]),
    ]


def _why(part: str, names: list[str]) -> list[str]:
    """The reasons for what is said of these names; a name without one is said to lack it."""
    found = [
        text for start, text in WHY[part].items() if any(name.startswith(start) for name in names)
    ]
    known = tuple(WHY[part])
    lacking = [name for name in names if not name.startswith(known)]
    found += [f"{name}: not looked into yet." for name in lacking]
    return (
        ["Where it is slower than it should be, and why:\n", *[f"- {text}" for text in found], ""]
        if found
        else []
    )


def _how(part: Mapping[str, Piece]) -> str:
    """How long it took, and in which size."""
    minutes = sum(piece.took for piece in part.values()) / 60
    large = [store for store, piece in part.items() if not piece.quick]
    size = f"large for {', '.join(large)}" if large else "quick"
    return f"Size: {size}; {spread([minutes])} minutes.\n"
