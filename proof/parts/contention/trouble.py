"""A process that uses the file, is frozen, and is killed; and the next, and the next."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from afk.messaging.testing.history import History
from afk.messaging.testing.processes import Process, run

from ...place import Place
from .workers import disturb

PATIENCE = 120.0


@dataclass(frozen=True)
class Kill:
    """One of them: frozen from `began` until `end`, by `time.monotonic`; whether it had the lock
    then; what `integrity_check` found once it was dead."""

    began: float
    end: float
    locked: bool
    found: str


@asynccontextmanager
async def trouble(place: Place, file: Path, notes: Path, rng: Random) -> AsyncIterator[list[Kill]]:
    """There is always one, as long as the block lasts."""
    kills: list[Kill] = []
    task = asyncio.create_task(_one_by_one(place, file, notes, rng, kills))
    try:
        yield kills
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _one_by_one(
    place: Place, file: Path, notes: Path, rng: Random, kills: list[Kill]
) -> None:
    history = History(notes, "harness")
    try:
        for number in range(1_000_000):
            async with run(place, disturb, str(notes), number) as victim:
                await victim.line()
                await asyncio.sleep(rng.uniform(0.5, 3.5))
                locked = await _freeze(victim, file)
                began = time.monotonic()
                history.note("fault", process=f"victim-{number}", outcome="frozen")
                await asyncio.sleep(rng.uniform(0.1, 1.0))
                victim.kill()
                await victim.wait()
                history.note("fault", process=f"victim-{number}", outcome="killed")
            end = time.monotonic()
            kills.append(Kill(began, end, locked, await asyncio.to_thread(_checked, file)))
    finally:
        history.close()


async def _freeze(victim: Process, file: Path) -> bool:
    """Freeze it, if possible while it has the lock; whether it had."""
    for _ in range(300):
        if _holder(file) == victim.pid:
            break
        await asyncio.sleep(0.001)
    victim.signal(signal.SIGSTOP)
    await asyncio.sleep(0.02)  # whoever can get the lock has it by now, and says so
    return _holder(file) == victim.pid


def _holder(file: Path) -> int:
    return int.from_bytes(file.with_name(file.name + ".lock").read_bytes()[8:16], "little")


def _checked(file: Path) -> str:
    with closing(sqlite3.connect(file, timeout=PATIENCE)) as db:
        return str(db.execute("PRAGMA integrity_check(1)").fetchone()[0])
