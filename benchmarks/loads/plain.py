"""The workloads over a plain sqlite3 table, as durable as the library (WAL, synchronous FULL).

`batch` is how many messages a claim and a delete take in one commit, and, in W1b and W5, an
insert too: a sender that awaits each send cannot batch.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..buses import payload
from ..meter import Meter
from ..runner import Answer

CLAIM = (
    "UPDATE message SET leased = ? WHERE id IN (SELECT id FROM message"
    " WHERE mailbox = ? AND leased IS NULL ORDER BY id LIMIT ?) RETURNING id, body"
)
TABLE = (
    "CREATE TABLE message (id INTEGER PRIMARY KEY, mailbox TEXT, body BLOB, leased REAL)",
    "CREATE INDEX line ON message (mailbox, id) WHERE leased IS NULL",
)


class _Table:
    """Every method is one commit."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        for statement in TABLE:
            self.db.execute(statement)

    def insert(self, mailboxes: list[str], contents: list[dict[str, Any]]) -> None:
        rows = [
            (mailbox, json.dumps(content).encode())
            for mailbox, content in zip(mailboxes, contents, strict=True)
        ]
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany("INSERT INTO message (mailbox, body) VALUES (?, ?)", rows)
        self.db.execute("COMMIT")

    def claim(self, mailbox: str, limit: int) -> list[tuple[int, dict[str, Any]]]:
        rows = self.db.execute(CLAIM, (time.time() + 30, mailbox, limit)).fetchall()
        return sorted((number, json.loads(body)) for number, body in rows)

    def delete(self, rows: list[tuple[int, dict[str, Any]]]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany("DELETE FROM message WHERE id = ?", [row[:1] for row in rows])
        self.db.execute("COMMIT")

    def take(self, mailbox: str, limit: int) -> int:
        rows = self.claim(mailbox, limit)
        self.delete(rows)
        return len(rows)


@contextmanager
def _fresh() -> Iterator[_Table]:
    with tempfile.TemporaryDirectory(prefix="afk-bench-") as folder:
        table = _Table(Path(folder) / "plain.db")
        yield table
        table.db.close()


def _send(table: _Table, numbers: Sequence[int], meter: Meter) -> None:
    begin = time.perf_counter()
    table.insert(["receiver"] * len(numbers), [payload(number) for number in numbers])
    meter.took.append(time.perf_counter() - begin)


async def stream(count: int, batch: int, together: bool = False) -> AsyncIterator[Answer]:
    """W1, W3; with `together`, sends are batched too: W1b, W5."""
    with _fresh() as table:
        meter = Meter()
        for first in range(0, count, batch):
            numbers = range(first, min(first + batch, count))
            for some in [numbers] if together else [[number] for number in numbers]:
                _send(table, some, meter)
            assert table.take("receiver", batch) == len(numbers)
        yield meter.answer(count)


async def drain(count: int, batch: int) -> AsyncIterator[Answer]:
    """W5."""
    with _fresh() as table:
        meter = Meter()
        for first in range(0, count, batch):
            numbers = range(first, min(first + batch, count))
            _send(table, numbers, meter)
        while table.take("receiver", batch):
            pass
        yield meter.answer(count)


async def round_trip(count: int) -> AsyncIterator[Answer]:
    """W2: six commits, which nothing could batch."""
    with _fresh() as table:
        meter = Meter()
        for number in range(count):
            begin = time.perf_counter()
            table.insert(["receiver"], [payload(number)])
            rows = table.claim("receiver", 1)
            table.delete(rows)
            table.insert(["sender"], [rows[0][1]])
            table.take("sender", 1)
            meter.took.append(time.perf_counter() - begin)
        yield meter.answer(count)


async def broadcast(count: int, agents: int, batch: int) -> AsyncIterator[Answer]:
    """W4: copies in commits of `batch`; each reader takes its own."""
    with _fresh() as table:
        names = [f"agent-{number}" for number in range(agents)]
        meter = Meter()
        for number in range(count):
            begin = time.perf_counter()
            for first in range(0, agents, batch):
                some = names[first : first + batch]
                table.insert(some, [payload(number)] * len(some))
            meter.took.append(time.perf_counter() - begin)
            for name in names:
                table.take(name, batch)
        yield meter.answer(count * agents)
