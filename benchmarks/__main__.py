"""The command: measure some parts or all, print what was found, keep it."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

from .buses import STORES, TITLES
from .figures import HEAD, Result, text_table
from .reasons import ABOUT
from .report import document

PARTS = tuple(ABOUT)


def main() -> None:
    """Parse, measure, print; a file of JSON keeps the parts that were not measured this time."""
    options = _options()
    results = _kept(options.json)
    for name in () if options.no_run else options.parts or PARTS:
        part = importlib.import_module(f"benchmarks.parts.{name}")
        found = part.measure(options.quick, options.store or STORES)
        results[name] = results[name].updated(found) if options.store and name in results else found
        _show(name, found)
        if options.json:
            kept = {name: result.plain() for name, result in results.items()}
            options.json.write_text(json.dumps(kept, indent=1), "utf-8")
    if options.report:
        ordered = {name: results[name] for name in PARTS if name in results}
        options.report.write_text(document(ordered), "utf-8")


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="fewer messages and rounds")
    parser.add_argument(
        "--store", action="append", choices=TITLES, help="only this one; may be given again"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures here")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write them as a document")
    parser.add_argument("--no-run", action="store_true", help="only report what --json has kept")
    options = parser.parse_args()
    for name in options.parts:
        if name not in PARTS:
            parser.error(f"{name!r} is not a part; they are {', '.join(PARTS)}")
    return options


def _kept(path: Path | None) -> dict[str, Result]:
    if path is None or not path.exists():
        return {}
    kept = json.loads(path.read_text("utf-8"))
    return {name: Result.load(result) for name, result in kept.items()}


def _show(name: str, result: Result) -> None:
    print(f"\n{ABOUT[name][0]}\n")
    print(text_table(HEAD, [figure.cells() for figure in result.figures]), flush=True)
    for table in result.tables:
        print(f"\n{table.title}\n\n{text_table(table.head, table.rows)}", flush=True)


if __name__ == "__main__":
    main()
