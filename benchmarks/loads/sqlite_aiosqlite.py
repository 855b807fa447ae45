"""The workloads over the plain table again, but awaited: through aiosqlite, one commit a step."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Self

import aiosqlite

from . import over, over_sqlite
from .over import Content, Taken
from .over_sqlite import FilePeer
from .plain import CLAIM, TABLE


class Table(FilePeer):
    """One table, one connection and its thread."""

    async def open(self, folder: str, mailboxes: list[str]) -> Self:
        """Make it."""
        self._db = await aiosqlite.connect(f"{folder}/plain.db", isolation_level=None)
        await self._db.execute("PRAGMA journal_mode=WAL")
        await self._db.execute("PRAGMA synchronous=FULL")
        for statement in TABLE:
            await self._db.execute(statement)
        return self

    async def insert(self, mailbox: str, content: Content) -> None:
        """A row."""
        row = (mailbox, json.dumps(content).encode())
        await self._db.execute("INSERT INTO message (mailbox, body) VALUES (?, ?)", row)

    async def first(self, mailbox: str) -> Taken | None:
        """Lease one."""
        rows = await self._db.execute_fetchall(CLAIM, (time.time() + 30, mailbox, 1))
        for number, body in rows:
            return number, json.loads(body)
        return None

    async def ack(self, mailbox: str, taken: list[Taken]) -> None:
        """Delete them."""
        for number, _ in taken:
            await self._db.execute("DELETE FROM message WHERE id = ?", (number,))

    async def close(self) -> None:
        """End the thread."""
        await self._db.close()


fresh = partial(over_sqlite.fresh, Table)
stream = partial(over.stream, fresh, batch=1)
round_trip = partial(over.round_trip, fresh)
