"""Runs checks on a copy of the library, and tells which of them failed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from .mutant import ROOT

Result = Literal["PASSED", "FAILED", "ERROR"]

SMOKE = "check_a_sent_message_is_received"
"""What works with every mutant: a slip that stops everything would prove nothing."""

KINDS = {
    "memory": "Memory",
    "sqlite": "SQLite",
    "redis": "Redis",
    "postgres": "Postgres",
    "nats": "NATS",
}
PATIENCE = 300.0
_LINE = re.compile(r"^(PASSED|FAILED|ERROR) (\S+::\S+)", re.MULTILINE)


def target(store: str, check: str) -> str:
    """The test of a check of the contract; a test with its path is one already."""
    if "::" in check:
        return check
    return f"tests/contract/test_{store}.py::test_contract[{check}-{KINDS[store]}]"


def environment(library: Path) -> dict[str, str]:
    """Of a process that imports this copy of the library, as do all that it starts."""
    return os.environ | {"PYTHONPATH": f"{library}{os.pathsep}{ROOT}"}


async def results(library: Path, targets: Iterable[str]) -> dict[str, Result]:
    """How each test ended; one that never did is not there. RuntimeError if they cannot run."""
    chosen = list(targets)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-rA", "--tb=no", "-p", "no:cacheprovider"),
        *chosen,
        cwd=ROOT,
        env=environment(library),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            said, _ = await process.communicate()
    except TimeoutError:
        return {}  # it hangs
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if process.returncode not in (0, 1):
        raise RuntimeError(f"exit code {process.returncode}: {said.decode()[-1000:]}")
    found: dict[str, Result] = {}
    for how, test in _LINE.findall(said.decode()):
        if found.get(test, "PASSED") == "PASSED":  # an error after the test is one of the test
            found[test] = how
    return found
