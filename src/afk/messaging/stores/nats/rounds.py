"""Questions that many have at the same time, asked once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ...log import log
from ...overdue import by, within


class Rounds:
    """Who asks while a question is under way waits for the next one: its answer is from later.

    ask: the question; the server's time is the answer. patience: seconds they wait.
    """

    def __init__(self, ask: Callable[[], Awaitable[float]], patience: float) -> None:
        self._ask = ask
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._one = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self._rounds: set[asyncio.Task[None]] = set()
        self._ahead = 0.0

    async def next(self) -> None:
        """Return when a question that began after this call has been answered; TimeoutError when
        the first who waits for it has waited too long."""
        if self._next is None:
            self._next = self._loop.create_task(self._round())
            self._rounds.add(self._next)
            self._next.add_done_callback(self._over)
            self._next.add_done_callback(noted)
        await asyncio.shield(self._next)

    async def close(self) -> None:
        """Return when nothing is asked any more."""
        if self._rounds:
            await asyncio.wait(self._rounds)

    def heard(self, time: float, at: float | None = None) -> None:
        """The server said what time it is; at: in the loop's time, when that was."""
        self._ahead = time - (self._loop.time() if at is None else at)

    def time(self) -> float:
        """The server's time now, going by the last answer."""
        return self._loop.time() + self._ahead

    async def _round(self) -> None:
        await by(within(self._patience), self._in_turn())

    async def _in_turn(self) -> None:
        async with self._one:
            self._next = None
            self.heard(await self._ask())

    def _over(self, task: asyncio.Task[None]) -> None:
        self._rounds.discard(task)
        if self._next is task:  # its time was over before its turn came
            self._next = None


def noted(future: asyncio.Future[Any]) -> None:
    """Whoever asked may be gone: its failure is no secret then."""
    if not future.cancelled() and (error := future.exception()) is not None:
        log.debug("%s", error)
