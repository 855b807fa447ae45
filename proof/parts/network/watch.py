"""How it goes in a process: what works again, what takes too long, what is wrong."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable
from typing import TypeVar

from afk.messaging.testing.processes import say

T = TypeVar("T")
EVERYTHING = frozenset({"send", "send both", "answer", "receive", "claim", "serve"})
SLACK = 1.0
"""Seconds that a call may outlive its deadline."""


class Watch(logging.Handler):
    """bad: a sentence for each violation. An error that the library logs is one: whatever the
    network does is to be expected; those of others are counted. overruns: seconds by which calls
    outlived their deadlines."""

    def __init__(self, me: str) -> None:
        super().__init__(logging.ERROR)
        self.bad: list[str] = []
        self.counts: Counter[str] = Counter()
        self.overruns: list[float] = []
        self._me = me
        self._turn, self._since = 0, 0.0
        self._awaited: set[str] = set()
        self._pause = 0.0
        self._late: list[tuple[str, float]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("afk."):
            self.bad.append(f"{self._me}: {self.format(record)}".replace("\n", " | "))
        else:
            self.counts["errors logged by drivers"] += 1

    def begin(self, turn: int, since: float) -> None:
        """From now on say what works for the first time since then."""
        self._turn, self._since = turn, since
        self._awaited = set(EVERYTHING)

    def worked(self, what: str) -> None:
        """Something succeeded."""
        if what in self._awaited:
            self._awaited.discard(what)
            took = time.monotonic() - self._since
            say(["recovered", self._turn, what, took, len(self._awaited)])

    async def timed(self, what: str, bound: float, call: Awaitable[T]) -> T:
        """The call, which is to end within `bound` s."""
        began = time.monotonic()
        try:
            return await call
        finally:
            over = time.monotonic() - began - bound
            if over > 0:
                self.overruns.append(over)
                self._late.append((what, over))

    async def tick(self) -> None:
        """Know how long this process was kept from working, by others on its machine."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.05)
            self._pause = max(self._pause, time.monotonic() - began - 0.05)

    def judge_times(self) -> None:
        """Say of each call that took too long, even so, that it is bad."""
        for what, over in self._late:
            if over > SLACK + self._pause:
                self.bad.append(f"{self._me}: a {what} ended {over:.2f} s after its deadline")
