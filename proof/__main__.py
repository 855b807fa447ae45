"""The command: run parts in their large size, go on with what was begun, write the report."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from .report import document
from .runner import forget, part_named, run

STORES = ("memory", "sqlite", "redis", "postgres", "nats")
PARTS = (
    "mutants",
    "crash",
    "simulation",
    "model",
    "cancel",
    "zombies",
    "power",
    "contention",
    "network",
    "inputs",
)


def main() -> None:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(prog="python -m proof", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none"
    )
    parser.add_argument("--store", action="append", choices=STORES, help="only this one")
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs brought")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write all results there")
    options = parser.parse_args()
    for name in options.parts:
        if name not in PARTS:
            parser.error(f"{name!r} is not a part; they are {', '.join(PARTS)}")
    stores = options.store or STORES
    for name in options.parts or (() if options.report else PARTS):
        if options.fresh:
            forget(name, stores)
        for line in run(part_named(name), stores, options.seed):
            print(f"{name}: {line}", flush=True)
    if options.report:
        options.report.write_text(document(PARTS), "utf-8")


if __name__ == "__main__":
    main()
