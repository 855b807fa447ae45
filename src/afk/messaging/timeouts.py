"""One time-out for each of many tasks, and one timer for all of them."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any


class Timeouts:
    """`asyncio.timeout` for tasks that all have the same time: whoever entered first is the first
    to be late, so no task needs a timer of its own."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[_Block, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def of(self, task: asyncio.Task[Any]) -> _Block:
        """A block of this task: when its time is over the task is cancelled, and the block ends
        with TimeoutError."""
        return _Block(self, task)

    def close(self) -> None:
        """Nobody enters any more. Who is still inside keeps the timer."""
        if self._timer is not None and not self._running:
            self._timer.cancel()
            self._timer = None

    def enter(self, block: _Block) -> None:
        """Its time begins."""
        loop = asyncio.get_running_loop()
        block.end = loop.time() + self._seconds
        self._running[block] = None
        if self._timer is None:
            self._timer = loop.call_at(block.end, self._cancel_late)

    def leave(self, block: _Block) -> None:
        """It has ended."""
        self._running.pop(block, None)

    def _cancel_late(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for block in list(self._running):
            if block.end > loop.time():
                self._timer = loop.call_at(block.end, self._cancel_late)
                return
            del self._running[block]
            block.late = True
            block.task.cancel()


class _Block:
    """late: its task was cancelled because its time was over."""

    __slots__ = ("_timeouts", "end", "late", "task")

    def __init__(self, timeouts: Timeouts, task: asyncio.Task[Any]) -> None:
        self._timeouts = timeouts
        self.task = task
        self.end = 0.0
        self.late = False

    def __enter__(self) -> None:
        self._timeouts.enter(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timeouts.leave(self)
        # As in asyncio.timeout: who else cancelled the task is not to be told of a time-out.
        if self.late and self.task.uncancel() == 0 and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error
