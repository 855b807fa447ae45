"""An SQLite file: who can read it, who holds it, how much room it has, whether it is whole."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from afk.messaging.edges.doctor.finding import Finding, bad, good, warning

LITTLE_ROOM = 200e6
LONG_LOG = 64e6
HELD = 2.0
"""Seconds: a write takes milliseconds, so who holds the lock longer hangs or is frozen."""
_FIXED = ((3, 51, 3), (3, 50, 7), (3, 44, 6))


async def look(url: str, options: Mapping[str, str]) -> AsyncIterator[Finding]:
    """The file itself, without opening it: closing it again would drop this process's locks."""
    for finding in (*_seen(Path(unquote(urlsplit(url).path)[1:])), _version()):
        yield finding


def _seen(path: Path) -> Iterator[Finding]:
    if path.exists():
        yield from _access(path)
        yield from _room(path)
        yield from _holder(path)
        yield from _whole(path)


def _access(path: Path) -> Iterator[Finding]:
    mode = path.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warning(
            f"others than its owner may use {path} (mode {stat.S_IMODE(mode):o})",
            f"if that is not meant: chmod 600 {path}",
        )
    else:
        yield good(f"only its owner may use {path}")


def _room(path: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(path.parent).free
    if free < LITTLE_ROOM:
        yield bad(f"{free / 1e6:.0f} MB are free on its disk", "make room: sends will fail")
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size > LONG_LOG:
        yield warning(
            f"the write-ahead log has grown to {log.stat().st_size / 1e6:.0f} MB",
            "some program keeps a read transaction open: end it, such as a sqlite3 shell",
        )


def _holder(path: Path) -> Iterator[Finding]:
    """Who holds the lock file, by its own word, for two looks with a pause between them."""
    lock = path.with_name(f"{path.name}.lock")
    if not lock.exists():
        return
    first = _word(lock)
    if first[1]:
        end = time.monotonic() + HELD
        while _word(lock) == first and time.monotonic() < end:
            time.sleep(0.05)
        if _word(lock) == first and _alive(first[1]):
            yield bad(
                f"process {first[1]} has held the file's lock for {HELD:g} s; all others wait",
                f"look at it (is it stopped?); kill -CONT {first[1]}, or kill -9 {first[1]}:"
                " nothing is lost",
            )


def _word(lock: Path) -> tuple[int, int]:
    data = lock.read_bytes()
    return int.from_bytes(data[:8], "little"), int.from_bytes(data[8:16], "little")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _whole(path: Path) -> Iterator[Finding]:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
            [found] = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        found = str(error)
    if found == "ok":
        yield good("the file is whole (quick_check)")
    else:
        yield bad(f"the file is damaged: {found}", "restore it, or: sqlite3 FILE .recover")


def _version() -> Finding:
    version = sqlite3.sqlite_version_info
    if (
        any(version[:2] == fixed[:2] and version >= fixed for fixed in _FIXED)
        or version > _FIXED[0]
    ):
        return good(f"SQLite {sqlite3.sqlite_version}")
    return good(
        f"SQLite {sqlite3.sqlite_version}: it has a rare bug that two checkpoints at once can"
        " meet; the lock file keeps processes of this package from it, other programs must not"
        " write to the file"
    )
