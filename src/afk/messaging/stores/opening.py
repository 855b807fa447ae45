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

    async def open(self) -> None:
        """Open it, or wait until it is; each open is matched by a close, but one that fails."""
        self._users += 1
        task = self._task
        if task is None or (task.done() and task.exception() is not None):
            task = self._task = asyncio.ensure_future(self._start())
        try:
            await asyncio.shield(task)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """The last close ends it."""
        self._users -= 1
        if self._users == 0 and self._task is not None:
            task, self._task = self._task, None
            if self._hasty:
                task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and task.exception() is None:
                await self._stop()
