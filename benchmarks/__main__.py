"""Measures afk.messaging next to its peers. With --report what is found is kept, and what was
kept before is not measured again; without it everything that is asked for is measured, and printed.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .buses import TITLES
from .curve import CURVE
from .figures import HEAD
from .parts import Wish
from .races import RACE
from .reasons import ABOUT, DURABILITY
from .report import document
from .results import Piece, Result, forget, keep, machine, read
from .runner import say
from .text import text_table

PARTS = tuple(ABOUT)
PAGE = ("workloads", "profile", "curves", "wake", "memory", "start")
"""What is measured unless somebody says which; the others take long."""


def main() -> None:
    """Parse, measure, print, report."""
    options = _options()
    wish = Wish(options.size == "quick", tuple(options.workload), tuple(options.peers))
    names = () if options.no_run else options.parts or PAGE
    parts = {name: importlib.import_module(f"benchmarks.parts.{name}") for name in names}
    if options.report and options.fresh:
        for name, part in parts.items():
            forget(name, _stores(part, options.store))
    for name, part in parts.items():
        for store in _stores(part, options.store):
            _piece(name, part, store, wish, keeping=bool(options.report))
    if options.report:
        _write(options.report)


def _piece(name: str, part: Any, store: str, wish: Wish, keeping: bool) -> None:
    """Measure and print; where it is kept, only what has not been."""
    kept = read(name).get(store) if keeping else None
    if kept and kept.quick == wish.quick:
        say(f"{name} {store}: kept from {kept.on.date}")
        return
    begin = time.monotonic()
    result = part.measure(wish, store)
    piece = Piece(wish.quick, time.monotonic() - begin, machine(), result)
    _show(f"{ABOUT[name][0]}: {TITLES.get(store, 'any store')}", store, piece.result)
    if keeping:
        keep(name, store, piece)


def _stores(part: Any, asked: list[str]) -> Iterator[str]:
    """Of those the part is for; another kind of a server only when asked for."""
    for store in part.STORES:
        if not asked or store in asked:
            yield store
    if "nats_synced" in asked and "nats" in part.STORES:
        yield "nats_synced"


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; {', '.join(PAGE)} if none"
    )
    parser.add_argument("--size", choices=("quick", "large"), default="quick")
    parser.add_argument(
        "--store", action="append", default=[], choices=TITLES, help="only this; may be repeated"
    )
    for name, what in (("workload", "workloads or curves"), ("peers", "peers; `none` for none")):
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar="WORD", help=f"only such {what}"
        )
    parser.add_argument("--report", type=Path, metavar="FILE", help="keep all, and write the page")
    parser.add_argument("--fresh", action="store_true", help="forget first what is kept of it")
    parser.add_argument("--no-run", action="store_true", help="only report")
    options = parser.parse_args()
    for name in options.parts:
        if name not in PARTS:
            parser.error(f"{name!r} is not a part; they are {', '.join(PARTS)}")
    if options.report and (options.workload or options.peers):
        parser.error("a report is of all workloads and peers")
    return options


def _show(title: str, store: str, result: Result) -> None:
    tables = [
        ("", HEAD, [figure.cells() for figure in result.figures]),
        (DURABILITY.get(store, ""), RACE, [row for race in result.races for row in race.rows()]),
        (
            "",
            CURVE,
            [
                [row[0], f"{curve.grows} {row[1]}", *row[2:]]
                for curve in result.curves
                for row in curve.rows()
            ],
        ),
        *[(table.title, table.head, table.rows) for table in result.tables],
    ]
    for about, head, rows in tables:
        if rows:
            print(
                f"\n{title}{f' ({about})' if about else ''}\n\n{text_table(head, rows)}", flush=True
            )


def _write(path: Path) -> None:
    """The page, and its charts in a folder of its name beside it."""
    folder = path.with_suffix("")
    parts = {name: pieces for name in PARTS if (pieces := _ordered(read(name)))}
    text, charts = document(parts, folder.name)
    path.write_text(text, "utf-8")
    folder.mkdir(exist_ok=True)
    for name, chart in charts.items():
        (folder / name).write_text(chart, "utf-8")


def _ordered(pieces: dict[str, Piece]) -> dict[str, Piece]:
    order = [*TITLES, "none"]
    return {store: pieces[store] for store in order if store in pieces}


if __name__ == "__main__":
    main()
