"""Steps that many checks share."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from ..delivery import Delivery
from ..lifecycle import RetryPolicy
from ..mailbox import AgentMailbox
from ..messages import AgentMessage
from ..worker import Handler

PATIENCE = 20.0
"""Seconds after which what should have happened did not."""

AT_ONCE = RetryPolicy(base=0.0, jitter="none")
"""Retries without a pause, for checks that are not about the pause."""


async def claimed(
    mailbox: AgentMailbox, timeout: float = 0, lease: float | None = None
) -> Delivery[AgentMessage]:
    """The next delivery, which must be there."""
    delivery = await mailbox.claim(timeout, lease=lease)
    assert delivery is not None, f"nothing to claim for {mailbox.name!r}"
    return delivery


async def contents(mailbox: AgentMailbox) -> list[Any]:
    """What waits now, in delivery order, taken out of the mailbox."""
    found = []
    while (message := await mailbox.receive(timeout=0)) is not None:
        found.append(message.content)
    return found


async def until(
    condition: Callable[[], bool | Awaitable[bool]], what: str, timeout: float = PATIENCE
) -> None:
    """Wait until the condition (a plain or async function) holds, for `timeout` s at most."""
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    while True:
        held = condition()
        if held if isinstance(held, bool) else await held:
            return
        assert loop.time() < end, f"not within {timeout} s: {what}"
        await asyncio.sleep(0.005)


class Effects:
    """A table of a check's own, for what handlers write in their turns; others share the database.

    name: of a table that another process made. connection: sqlite3's, or asyncpg's.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name or f"effects_{secrets.token_hex(8)}"

    async def create(self, connection: Any) -> None:
        """Make the table, if there is none."""
        await _execute(connection, f"CREATE TABLE IF NOT EXISTS {self.name} (effect TEXT NOT NULL)")

    async def add(self, connection: Any, effect: object) -> None:
        """Write one."""
        place = "?" if isinstance(connection, sqlite3.Connection) else "$1"
        await _execute(connection, f"INSERT INTO {self.name} VALUES ({place})", str(effect))

    async def all(self, connection: Any) -> list[str]:
        """What has been written, sorted."""
        return sorted(row[0] for row in await _execute(connection, f"SELECT * FROM {self.name}"))


async def _execute(connection: Any, sql: str, *values: object) -> list[Any]:
    if isinstance(connection, sqlite3.Connection):
        return connection.execute(sql, values).fetchall()
    rows: list[Any] = await connection.fetch(sql, *values)
    return rows


@asynccontextmanager
async def serving(
    mailbox: AgentMailbox, handler: Handler[AgentMessage], **options: Any
) -> AsyncIterator[asyncio.Task[None]]:
    """A consumer at work; cancelled, drained and checked when the block is left."""
    task = asyncio.create_task(mailbox.serve(handler, **options))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=PATIENCE)
    assert task.done(), "serve does not end when cancelled"
    assert task.cancelled(), f"serve ended by itself: {task.exception()!r}"
