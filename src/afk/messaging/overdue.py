"""What takes too long, where the event loop itself may have been late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

from msgspec import Struct

T = TypeVar("T")

SPARE: Final = 0.8
"""Seconds that the loop runs after the end of a wait, in which an answer still counts. A store may
be slow; and when a loop that was blocked goes on, timers are due before what has come is read."""
_PART: Final = SPARE / 4
"""At most so many of them pass in one timer: the loop comes round several times meanwhile."""
_CLOSE: Final = 0.05
"""Seconds that make no difference."""


class Watch:
    """A timer for what waits and should have ended, which knows how late the loop has been.

    look: called when something may be overdue.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, look: Callable[[], None]) -> None:
        self._loop = loop
        self._look = look
        self._timer: asyncio.TimerHandle | None = None
        self._now = 0.0
        self._blocks: list[tuple[float, float]] = []  # until when the loop was late, and how much

    def until(self, end: float) -> None:
        """Something should end by `end` (the loop's time). An earlier end that is set stays."""
        if self._timer is None:
            self._blocks = [block for block in self._blocks if block[0] > end]
            self._wait(end, end)

    def overdue(self, end: float) -> bool:
        """Whether the loop had run for the spare time since, when it looked: one answer a look."""
        return self._spare(end) < _CLOSE

    def late(self, end: float) -> float:
        """Seconds of the time since `end` that the loop did not run, as far as it is known."""
        now = self._loop.time()
        if now <= end:
            return 0.0
        late = sum(max(0.0, min(block, till - end)) for till, block in self._blocks)
        if self._timer is not None:
            late += max(0.0, min(now - self._timer.when(), now - end))
        return late

    def cancel(self) -> None:
        """Look no more, until an end is set again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _spare(self, end: float) -> float:
        return SPARE - (self._now - end - self.late(end))

    def _wait(self, end: float, when: float) -> None:
        # A timer that is set for a time which is over would take that for the loop's lateness.
        soonest = max(when, self._loop.time())
        self._timer = self._loop.call_at(soonest, self._due, end, soonest)

    def _due(self, end: float, soonest: float) -> None:
        self._timer = None
        self._now = self._loop.time()
        self._blocks.append((self._now, self._now - soonest))
        if self.overdue(end):
            self._look()
        else:
            self._wait(end, self._now + min(self._spare(end), _PART))


class Deadline(Struct, gc=False):
    """Until when somebody waits: a time of the loop, which moves on while the loop is late."""

    end: float

    def left(self) -> float:
        """Seconds until then."""
        return self.end - asyncio.get_running_loop().time()

    def waited(self) -> None:
        """Somebody waited for it, and no longer: what it is later now, the loop was late."""
        self.end = max(self.end, asyncio.get_running_loop().time())


def within(seconds: float) -> Deadline:
    """That of who waits so long from now."""
    return Deadline(asyncio.get_running_loop().time() + seconds)


async def by(deadline: Deadline, call: Coroutine[Any, Any, T]) -> T:
    """The call's result; TimeoutError if there is none in the spare time after the deadline."""
    async with asyncio.timeout(None) as limit:
        watch = Watch(asyncio.get_running_loop(), partial(limit.reschedule, deadline.end))
        watch.until(deadline.end)
        try:
            return await call
        finally:
            deadline.end += watch.late(deadline.end)
            watch.cancel()
