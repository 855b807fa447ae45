"""Turns that many callers put within one tick, as one script: what a call costs is paid once."""

from __future__ import annotations

import asyncio
from typing import Any

from .codec import Packed, joined

MOST_TURNS = 32
MOST_BYTES = 2**20
"""What one script may hold: the server does nothing else meanwhile, and while it is at work on the
next one this process is for those whom this one answered."""
AT_ONCE = 0.05
"""Seconds after the first caller within which others may join."""


class Gathered:
    """One call on its way to the server, and the callers who share it, each with a future.

    To the link it is a future itself: cancelled when every caller's is.
    """

    def __init__(self, now: float) -> None:
        self._since = now
        self._parts: list[tuple[Packed, asyncio.Future[Any]]] = []
        self._turns = self._bytes = 0

    def add(self, packed: Packed, future: asyncio.Future[Any], now: float) -> bool:
        """Take one caller's turns in; False if they do not fit, or it has waited for the server:
        every caller has a patience of its own."""
        turns, size = len(packed.turns), packed.size
        full = self._turns + turns > MOST_TURNS or self._bytes + size > MOST_BYTES
        if self._parts and (full or now - self._since > AT_ONCE):
            return False
        self._turns += turns
        self._bytes += size
        self._parts.append((packed, future))
        return True

    def args(self) -> tuple[Any, ...]:
        """The arguments of put.lua, without what was cancelled meanwhile."""
        self._parts = [part for part in self._parts if not part[1].cancelled()]
        return joined([packed for packed, _ in self._parts])

    def done(self) -> bool:
        """Whether nobody waits any more."""
        return all(future.done() for _, future in self._parts)

    def cancelled(self) -> bool:
        """Whether every caller has given up."""
        return all(future.cancelled() for _, future in self._parts)

    def set_result(self, answer: Any) -> None:
        """To each caller the verdicts of its turns; who died is told to the first who waits."""
        died, _, verdicts = answer
        start = 0
        for packed, future in self._parts:
            end = start + len(packed.turns)
            if not future.done():
                future.set_result((died, verdicts[start:end]))
                died = []
            start = end

    def set_exception(self, error: BaseException) -> None:
        """The same to all."""
        for _, future in self._parts:
            if not future.done():
                future.set_exception(error)
