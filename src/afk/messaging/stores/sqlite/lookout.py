"""Telling those who wait of what other processes wrote, and of what time has brought about."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from ...hints import Bells
from .lock import LockFile
from .watch import watch

PAUSE = 0.005
"""Seconds between looks, at least: a busy neighbour must not keep this process busy."""
GLANCE = 0.014
"""Seconds between glances at the count of writes, where the file cannot be watched."""


class Lookout:
    """Lives in the event loop, and has the store look when there may be news.

    look: asks the store which of these topics have news, after letting time pass if the second
    argument is set; the answer, and when something is next due, comes back by `told`.
    """

    def __init__(
        self,
        lock: LockFile,
        bells: Bells,
        clock: Callable[[], float],
        look: Callable[[list[str], bool], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock = lock
        self._bells = bells
        self._clock = clock
        self._look = look
        self._seen = lock.writes
        self._due = float("inf")
        self._asleep = False
        self._alarm: asyncio.TimerHandle | None = None
        self._pausing: asyncio.TimerHandle | None = None
        self._descriptor = watch(lock.path)
        self._resume()

    def close(self) -> None:
        """Look no more, and expect nothing."""
        self._due = float("-inf")
        for timer in (self._alarm, self._pausing):
            if timer is not None:
                timer.cancel()
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)

    def own_write(self, before: int, after: int) -> None:
        """This process raised the count: no news, unless others did so too."""
        if self._seen == before:
            self._seen = after

    def expect(self, due: float) -> None:
        """Something is due then; look at that time if anyone waits."""
        if due < self._due:
            self._due = due
            if self._alarm is not None:
                self._alarm.cancel()
            wait = min(max(0.0, due - self._clock()), 86_400.0)
            self._alarm = self._loop.call_later(wait, self._ring_out)

    def awake(self) -> None:
        """Someone listens: look, if there was a reason to while nobody did."""
        if self._asleep:
            self._asleep = False
            self.expect(self._clock())

    def told(self, news: list[str], due: float) -> None:
        """What a look found."""
        for topic in news:
            self._bells.ring(topic)
        self.expect(due)

    def _ring_out(self) -> None:
        self._alarm, self._due = None, float("inf")
        # Time is let pass too, or what is overdue and in nobody's mailbox would ring on and on.
        self._ask(due=True)

    def _resume(self) -> None:
        self._pausing = None
        if self._descriptor is not None:
            self._loop.add_reader(self._descriptor, self._noticed)
        else:
            self._pausing = self._loop.call_later(GLANCE, self._noticed)

    def _noticed(self) -> None:
        """The file was written to, perhaps by this process; then look away for a moment."""
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            with contextlib.suppress(BlockingIOError):
                os.read(self._descriptor, 4096)
            self._pausing = self._loop.call_later(PAUSE, self._resume)
        else:
            self._resume()
        if self._lock.writes != self._seen:
            self._ask()

    def _ask(self, *, due: bool = False) -> None:
        self._seen = self._lock.writes  # before the look: what comes meanwhile is news
        if self._bells:
            self._look(self._bells.topics(), due)
        else:
            self._asleep = True
