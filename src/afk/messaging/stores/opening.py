"""A store that several buses open: the first opens it, the last closes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Opening:
    """Counts who has it open.

    start and stop: what opening and closing is. hasty: an opening that nobody waits for any more
    is cancelled, not waited for.
    """

    def __init__(
        self,
        start: Callable[[], Awaitable[None]],
        stop: Callable[[], Awaitable[None]],
        *,
        hasty: bool = False,
    ) -> None:
        self._start = start
        self._stop = stop
        self._hasty = hasty
        self._users = 0
        self._task: asyncio.Future[None] | None = None
        self._ending: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Open it, or wait until it is; each open is matched by a close, but one that fails."""
        self._users += 1
        task = self._task
        if task is None or (task.done() and task.exception() is not None):
            task = self._task = asyncio.ensure_future(self._begin(self._ending))
        try:
            await asyncio.shield(task)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """The last close ends it, and every one waits for that. Cancelled, it ends all the same."""
        self._users -= 1
        if self._users == 0 and self._task is not None:
            task, self._task = self._task, None
            self._ending = asyncio.ensure_future(self._end(task))
        if self._ending is not None:
            await asyncio.shield(self._ending)

    async def _begin(self, ending: asyncio.Future[None] | None) -> None:
        if ending is not None and not ending.done():  # a finished one may be another loop's
            await asyncio.wait([ending])
        await self._start()

    async def _end(self, task: asyncio.Future[None]) -> None:
        if self._hasty:
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            await self._stop()
