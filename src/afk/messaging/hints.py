"""Wake-ups inside one event loop: bells hung on topics, rung by whoever stores something."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator

from .store import FATE, MAIL, Turn


class Bells:
    """All the bells of one store."""

    def __init__(self) -> None:
        self._topics: dict[str, OrderedDict[_Bell, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._topics)

    def __contains__(self, topic: object) -> bool:
        return topic in self._topics

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

    def ring(self, topic: str) -> bool:
        """Mail wakes one listener, who has not been rung yet; a fate wakes all of them. Whether
        there was one."""
        bells = self._topics.get(topic)
        if not bells:
            return False
        if not topic.startswith(MAIL):
            for bell in bells:
                bell.ring()
            return True
        for bell in bells:
            if not bell.rung:
                bell.ring()
                bells.move_to_end(bell)
                return True
        return False

    def foretell(self, turns: tuple[Turn, ...]) -> None:
        """Ring for what these turns will bring if they are taken: who waits for it asks at once,
        and so in the same call to the store, behind them."""
        if self._topics:
            for topic in brought(turns):
                self.ring(topic)

    def remove(self, bell: _Bell) -> None:
        """Take a bell down."""
        bells = self._topics.get(bell.topic)
        if bells is not None:
            bells.pop(bell, None)
            if not bells:
                del self._topics[bell.topic]


class _Bell:
    """For one task to wait on."""

    __slots__ = ("_bells", "_waiter", "rung", "topic")

    def __init__(self, bells: Bells, topic: str) -> None:
        self._bells = bells
        self._waiter: asyncio.Future[None] | None = None
        self.topic = topic
        self.rung = False

    async def wait(self, timeout: float) -> bool:
        if not self.rung:
            loop = asyncio.get_running_loop()
            self._waiter = waiter = loop.create_future()
            alarm = loop.call_later(timeout, _wake, waiter)  # a fraction of what a Timeout takes
            try:
                await waiter
            finally:
                alarm.cancel()
                self._waiter = None
        rung, self.rung = self.rung, False
        return rung

    def ring(self) -> None:
        self.rung = True
        if self._waiter is not None:
            _wake(self._waiter)

    def close(self) -> None:
        self._bells.remove(self)
        if self.rung:
            # Woken for mail it never took: the next in line gets the hint.
            self._bells.ring(self.topic)


def brought(turns: tuple[Turn, ...]) -> Iterator[str]:
    """The topics that have news if these turns are taken, of what is sent with them."""
    for turn in turns:
        for send in turn.sends:
            if send.answers is not None and send.awaited:
                yield FATE + send.answers
            elif not send.delay:
                yield MAIL + send.mailbox


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
