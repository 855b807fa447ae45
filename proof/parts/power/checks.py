"""What SQLite itself says of a file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path


def integrity(file: Path) -> Iterator[str]:
    """What it finds wrong with it."""
    with closing(sqlite3.connect(file)) as db:
        [found] = db.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        yield f"integrity_check: {found}"
