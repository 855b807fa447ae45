"""One time-out for each of many tasks, and one timer for all of them."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any


class Timeouts:
    """A context in which each task is cancelled after so many seconds, its block then ending with
    TimeoutError: `asyncio.timeout` for tasks that have all the same time, so that whoever entered
    first is the first to be late, and no task needs a timer of its own.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends: dict[asyncio.Task[Any], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._ends[current_task()] = end = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(end, self._cancel_late)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task = current_task()
        if self._ends.pop(task, None) is not None:
            return
        # As in asyncio.timeout: who else cancelled the task is not to be told of a time-out.
        if task.uncancel() == 0 and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error

    def close(self) -> None:
        """Nobody enters any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cancel_late(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for task, end in list(self._ends.items()):
            if end > loop.time():
                self._timer = loop.call_at(end, self._cancel_late)
                return
            del self._ends[task]
            task.cancel()


def current_task() -> asyncio.Task[Any]:
    """The task that this is called in."""
    task = asyncio.current_task()
    assert task is not None  # blocks with an await in them run in tasks
    return task
