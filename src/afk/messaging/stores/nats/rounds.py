"""Questions that many have at the same time, asked once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ...log import log


class Rounds:
    """Who asks while a question is under way waits for the next one: its answer is from later.

    ask: the question; the server's time is the answer.
    """

    def __init__(self, ask: Callable[[], Awaitable[float]]) -> None:
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._one = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self._ahead = 0.0

    async def next(self) -> None:
        """Return when a question that began after this call has been answered."""
        if self._next is None:
            self._next = self._loop.create_task(self._round())
            self._next.add_done_callback(noted)
        await asyncio.shield(self._next)

    def heard(self, time: float) -> None:
        """The server said what time it is."""
        self._ahead = time - self._loop.time()

    def time(self) -> float:
        """The server's time now, going by the last answer."""
        return self._loop.time() + self._ahead

    async def _round(self) -> None:
        async with self._one:
            self._next = None
            self.heard(await self._ask())


def noted(future: asyncio.Future[Any]) -> None:
    """Whoever asked may be gone: its failure is no secret then."""
    if not future.cancelled() and (error := future.exception()) is not None:
        log.debug("%s", error)
