"""Some of the mutants, one of each store that needs no server; and that all fit the library."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from afk.messaging.testing import CHECKS
from proof.parts.mutants import PART, trials
from proof.parts.mutants.bench import SMOKE, environment, results, target
from proof.parts.mutants.mutant import ROOT, Mutant, copy
from proof.parts.mutants.seeded import MUTANTS
from proof.trial import Ground

from .small import place, small

__all__ = ["place"]

# The others start a server for each: they are for the large size.
test_nothing_breaks = small(
    replace(PART, trials=tuple(replace(t, stores=("memory", "sqlite")) for t in PART.trials))
)

WHERE = """
import asyncio
from pathlib import Path
import afk.messaging
from afk.messaging.testing.processes import run
from tests.proof.test_mutants import says_where
from tests.contract.subjects import SQLite

async def main():
    print(afk.messaging.__file__)
    async with run(SQLite(Path("{folder}")), says_where) as process:
        print(await process.line())

asyncio.run(main())
"""


async def says_where(bus: object) -> None:
    import afk.messaging
    from afk.messaging.testing.processes import say

    say(afk.messaging.__file__)


def test_there_are_enough() -> None:
    assert len(MUTANTS) >= 26
    assert len({(mutant.store, mutant.what) for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.store}: {mutant.what}")
def test_a_mutant_fits_the_library(mutant: Mutant) -> None:
    text = mutant.text()
    if mutant.file.endswith(".py"):
        compile(text, mutant.file, "exec")
    checks = {check.__name__ for check in CHECKS}
    for name in mutant.caught_by:
        assert name in checks or (ROOT / name.partition("::")[0]).exists(), name


def test_a_mutant_that_does_not_fit_is_an_error() -> None:
    lost = Mutant("memory", "lost", "core.py", (("no such text", ""),), ())
    with pytest.raises(ValueError, match=r"0 times in core\.py"):
        lost.text()


def test_the_copy_is_what_all_processes_import(tmp_path: Path) -> None:
    library = copy(tmp_path / "copy", None)
    command = sys.executable, "-c", WHERE.format(folder=tmp_path)
    said = subprocess.run(
        command, cwd=ROOT, env=environment(library), check=True, capture_output=True, text=True
    )
    assert said.stdout.split() == [str(library / "afk" / "messaging" / "__init__.py")] * 2


MUTANT = Mutant("memory", "a slip", "core.py", (("this bus is closed;", "closed;"),), ("check_x",))
SMOKE_TEST, CHECK_X = target("memory", SMOKE), target("memory", "check_x")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({SMOKE_TEST: "PASSED", CHECK_X: "FAILED"}, None),
        ({SMOKE_TEST: "PASSED", CHECK_X: "ERROR"}, None),
        ({SMOKE_TEST: "PASSED"}, None),  # the check ended the whole run
        ({}, None),  # it hangs
        ({SMOKE_TEST: "PASSED", CHECK_X: "PASSED"}, "a slip: not caught by check_x"),
        (
            {SMOKE_TEST: "FAILED", CHECK_X: "FAILED"},
            "a slip: nothing works with it, so it proves nothing",
        ),
    ],
)
async def test_what_a_run_says_of_a_mutant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: dict[str, str], said: str | None
) -> None:
    async def results(library: Path, targets: object) -> dict[str, str]:
        assert "closed;" in (library / "afk" / "messaging" / "core.py").read_text()
        return found

    monkeypatch.setattr(trials, "results", results)
    assert await trials.survived(Ground("memory", "memory", tmp_path), MUTANT) == said


async def test_a_control_that_fails_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def results(library: Path, targets: object) -> dict[str, str]:
        return {SMOKE_TEST: "PASSED"}

    monkeypatch.setattr(trials, "results", results)
    monkeypatch.setattr(trials, "MUTANTS", (MUTANT,))
    outcome = await trials.caught(Ground("memory", "memory", tmp_path), 1, 0)
    assert outcome.violations == [f"{CHECK_X} fails without a slip"]
    assert outcome.counts == {"mutants": 1, "caught": 1}


async def test_a_test_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    library = copy(tmp_path / "copy", None)
    with pytest.raises(RuntimeError, match="exit code 4"):
        await results(library, [target("memory", "check_of_nothing")])
