"""Wake-ups inside one event loop: bells hung on topics, rung by whoever stores something."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from .store import MAIL


class Bells:
    """All the bells of one store."""

    def __init__(self) -> None:
        self._topics: dict[str, OrderedDict[_Bell, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._topics)

    def listen(self, topic: str) -> _Bell:
        """A new bell, last in line."""
        bell = _Bell(self, topic)
        self._topics.setdefault(topic, OrderedDict())[bell] = None
        return bell

    def count(self, topic: str) -> int:
        """How many listen to a topic."""
        return len(self._topics.get(topic, ()))

    def topics(self) -> list[str]:
        """What anyone listens to now."""
        return list(self._topics)

    def ring(self, topic: str) -> None:
        """Mail wakes one listener, who has not been rung yet; a fate wakes all of them."""
        bells = self._topics.get(topic)
        if not bells:
            return
        if not topic.startswith(MAIL):
            for bell in bells:
                bell.rung.set()
            return
        for bell in bells:
            if not bell.rung.is_set():
                bell.rung.set()
                bells.move_to_end(bell)
                return

    def remove(self, bell: _Bell) -> None:
        """Take a bell down."""
        bells = self._topics.get(bell.topic)
        if bells is not None:
            bells.pop(bell, None)
            if not bells:
                del self._topics[bell.topic]


class _Bell:
    __slots__ = ("_bells", "rung", "topic")

    def __init__(self, bells: Bells, topic: str) -> None:
        self._bells = bells
        self.topic = topic
        self.rung = asyncio.Event()

    async def wait(self, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                await self.rung.wait()
        except TimeoutError:
            return False
        self.rung.clear()
        return True

    def ring(self) -> None:
        self.rung.set()

    def close(self) -> None:
        self._bells.remove(self)
        if self.rung.is_set():
            # Woken for mail it never took: the next in line gets the hint.
            self._bells.ring(self.topic)
