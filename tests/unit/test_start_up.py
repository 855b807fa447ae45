"""`import afk.messaging` brings what every bus needs, and nothing else; and it is quick."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "afk" / "messaging"
INNER = {".stores", ".stores.hosts"}
"""What of the packages within is imported at once: no store, no edge, nothing for tests."""
BESIDE = {
    *("afk", "bisect", "copy", "dataclasses", "difflib", "hashlib", "ipaddress", "json", "random"),
    "urllib",
}
"""What is imported beside that, and beside what `asyncio` and msgspec bring."""
LIMIT = 60
"""Milliseconds of CPU, `asyncio` among them, after the interpreter and msgspec."""
USUAL = 25
"""Milliseconds that `asyncio` takes of that. Where it takes more, the limit is as much higher."""
_TIMED = """
import time, msgspec
begin = time.process_time()
import asyncio
between = time.process_time()
import afk.messaging
print(between - begin, time.process_time() - begin)
"""


def run(code: str, cache: Path | None = None) -> str:
    """What it prints. cache: where compiled modules are kept, whatever the environment says."""
    environment = {**os.environ}
    if cache:
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["PYTHONPYCACHEPREFIX"] = str(cache)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_no_store_and_no_edge_is_imported_before_it_is_used() -> None:
    names = imported("afk.messaging")
    ours = {name.removeprefix("afk.messaging") for name in names if name.startswith("afk.")}
    assert {name for name in ours if (PACKAGE / name[1:].split(".")[0]).is_dir()} == {"", *INNER}


def test_what_a_store_or_a_command_needs_is_not_imported_for_it() -> None:
    names = imported("afk.messaging") - imported("asyncio, msgspec")
    roots = {name.partition(".")[0] for name in names}
    assert {name for name in roots if not name.startswith("_")} <= BESIDE


def imported(names: str) -> set[str]:
    return set(run(f"import {names}, sys; print(*sys.modules)").split())


def test_importing_takes_little(tmp_path: Path) -> None:
    run(_TIMED, tmp_path)  # compiles
    turns = [[float(each) * 1000 for each in run(_TIMED, tmp_path).split()] for _ in range(9)]
    asyncio_alone, whole = (min(turn[place] for turn in turns) for place in (0, 1))
    assert whole <= LIMIT * max(1, asyncio_alone / USUAL), turns
