"""The results as a document."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from .runner import RESULTS, part_named
from .trial import Part, Trial

_INTRO = """\
# Reliability

What was done to break the promises, and what came of it. Each table was made by the command above
it, which can be stopped and gone on with; `python -m proof --report docs/reliability.md` writes
this page from the files in `proof/results`. With no failure in n rounds the rate of failures is
below 3/n, at 95 % confidence; that bound is in the last column. A control must fail: if it did not,
what injects the faults would be broken.

Every test run makes the same rounds in a small size (`tests/proof`).
"""
_HEAD = ["store", "what", "rounds", "failures", "figures", "rate below"]


def document(parts: Iterable[str]) -> str:
    """A table for each part that has results."""
    text = [_INTRO]
    for name in parts:
        path = RESULTS / f"{name}.json"
        if path.exists():
            text.append(_section(part_named(name), json.loads(path.read_text("utf-8"))))
    if len(text) == 1:
        text.append("No part has been run in its large size yet.\n")
    return "\n".join(text)


def _section(part: Part, lines: dict[str, Any]) -> str:
    rows, notes = [], []
    for trial in part.trials:
        for store in trial.stores:
            line = lines.get(f"{store}: {trial.what}")
            if line is not None:
                rows.append(_row(trial, store, line))
                if line["violations"] and not trial.expect_failures:
                    notes += [f"- {store}, {trial.what}: {each}" for each in line["violations"][:5]]
    table = [_HEAD, ["---"] * len(_HEAD), *rows]
    took = sum(line["took"] for line in lines.values()) / 60
    on = max((line["on"] for line in lines.values()), key=lambda each: str(each["date"]))
    versions = ", ".join(f"{name} {number}" for name, number in on["packages"].items())
    seeds = ", ".join(sorted({str(line["seed"]) for line in lines.values()}))
    return "\n".join(
        [
            f"## {part.title}\n",
            f"`make proof PART={part.name}`\n",
            f"{part.about}\n",
            *(f"| {' | '.join(row)} |" for row in table),
            "",
            *(["What failed:\n", *notes, ""] if notes else []),
            f"{took:.0f} minutes on {on['cores']} cores, {on['system']}, Python {on['python']},"
            f" SQLite {on['sqlite']}, {versions}; {on['date']}; seed {seeds}.\n",
        ]
    )


def _row(trial: Trial, store: str, line: dict[str, Any]) -> list[str]:
    if line.get("lacks"):
        return [store, trial.what, "0", "", f"not run: {line['lacks']}", ""]
    rounds, failures = line["rounds"], len(line["violations"])
    figures = [f"{name} {count:,}" for name, count in sorted(line["counts"].items())]
    for name, times in sorted(line["seconds"].items()):
        ordered = sorted(times)
        p50, p99 = (ordered[int((len(ordered) - 1) * share)] for share in (0.5, 0.99))
        figures.append(f"{name} p50 {p50 * 1e3:,.0f} ms, p99 {p99 * 1e3:,.0f} ms")
    bound = f"{3 / rounds * 100:.2g} %" if rounds and not failures else ""
    failed = f"{failures:,} (it must)" if trial.expect_failures else f"{failures:,}"
    return [store, trial.what, f"{rounds:,}", failed, ", ".join(figures), bound]
