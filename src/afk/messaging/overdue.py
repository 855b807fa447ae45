"""What takes too long, where the event loop itself may have been late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

SPARE: Final = 0.9
"""Seconds after the end of a wait in which an answer still counts: a store may be slow, and who
blocks the event loop keeps it from reading what has come. When it goes on, timers are due first."""
TIMES: Final = 4
"""So often the loop comes round at least in that time, however long it is blocked in between."""


class Watch:
    """A timer for what waits, whose end it outlives by `SPARE`, and by as much as the loop is late.

    look: called with a time of the loop: what should have ended by then is overdue.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, look: Callable[[float], None]) -> None:
        self._loop = loop
        self._look = look
        self._timer: asyncio.TimerHandle | None = None
        self._end = 0.0

    def until(self, end: float) -> None:
        """Something should end by `end` (the loop's time). An earlier end that is set stays."""
        if self._timer is None:
            now = self._loop.time()
            # Later than any spare time: that was the loop, and not who is waited for.
            self._wait(now if now > end + SPARE else end, TIMES)

    def _wait(self, when: float, times: int) -> None:
        soonest = max(when, self._loop.time())
        self._timer = self._loop.call_at(when, self._due, when, soonest, times)

    def _due(self, when: float, soonest: float, times: int) -> None:
        when += self._loop.time() - soonest  # so late is the loop
        if times == TIMES:
            self._end = when
        if times:
            self._wait(when + SPARE / TIMES, times - 1)
        else:
            self._timer = None
            self._look(self._end)

    def cancel(self) -> None:
        """Look no more, until an end is set again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def by(end: float, call: Coroutine[Any, Any, T]) -> T:
    """The call's result; TimeoutError if there is none by `end` (the loop's time), or the spare
    time after it."""
    async with asyncio.timeout(None) as limit:
        watch = Watch(asyncio.get_running_loop(), limit.reschedule)
        watch.until(end)
        try:
            return await call
        finally:
            watch.cancel()
