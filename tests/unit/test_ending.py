"""Tasks that do not end at once."""

from __future__ import annotations

import asyncio

from afk.messaging.stores.ending import ended


async def test_a_cancellation_that_is_lost_is_said_again() -> None:
    lost = 0

    async def deaf() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost += 1
                if lost == 3:
                    raise

    async def failing() -> None:
        raise ValueError

    tasks = [asyncio.create_task(work()) for work in (deaf, failing)]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await ended(*tasks, again=0.01)
        await ended()
    assert lost == 3
    assert all(task.done() for task in tasks)
    assert isinstance(tasks[1].exception(), ValueError)
