"""Ending tasks that have a library's code on their stack."""

from __future__ import annotations

import asyncio

AGAIN = 2.0
"""Seconds until a task that goes on is told once more."""


async def ended(*tasks: asyncio.Task[None], again: float = AGAIN) -> None:
    """Cancel these, and return when all have ended, however they did.

    A cancellation can be lost on its way: before Python 3.12 `asyncio.wait_for`, by which drivers
    connect, drops one that comes in the tick in which what it waits for has failed.
    """
    going = set(tasks)
    while going:
        for task in going:
            task.cancel()
        over, going = await asyncio.wait(going, timeout=again)
        for task in over:
            if not task.cancelled():
                task.exception()  # no secret, since it was wanted no more
