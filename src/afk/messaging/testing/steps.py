"""Steps that many checks share."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
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


async def execute(connection: Any, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """The rows of a statement on a store's own connection: sqlite3's, or asyncpg's."""
    if isinstance(connection, sqlite3.Connection):
        return connection.execute(sql, values).fetchall()
    numbers = count(1)
    numbered = re.sub(r"\?", lambda _: f"${next(numbers)}", sql)
    return [tuple(row) for row in await connection.fetch(numbered, *values)]


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
