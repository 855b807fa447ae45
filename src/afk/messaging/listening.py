"""Waiting for a topic, until a deadline."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from .errors import StoreError
from .overdue import Deadline, by, within
from .store import A2ADeliveryStore, Bell

T = TypeVar("T")


class Listening:
    """A bell hung on a topic for the length of a block, rung too when the bus is closed."""

    __slots__ = ("_all", "_bell", "_poll")

    def __init__(self, store: A2ADeliveryStore, topic: str, everyone: set[Bell]) -> None:
        self._bell = store.listen(topic)
        self._poll = store.poll
        self._all = everyone

    def __enter__(self) -> Listening:
        self._all.add(self._bell)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._all.discard(self._bell)
        if kind is not None:
            self._bell.ring()  # what it was woken for is still there: the next in line is told
        self._bell.close()

    async def heard(self, deadline: Deadline | None) -> bool:
        """Wait for the topic, or long enough to ask again anyhow; False at the deadline."""
        remaining = self._poll
        if deadline is not None:
            remaining = min(remaining, deadline.left())
            if remaining <= 0:
                return False
        await self._bell.wait(remaining)
        if deadline is not None:
            deadline.waited()
        return True


def deadline_of(timeout: float | None) -> Deadline | None:
    """That of who waits for `timeout` seconds; None waits for ever."""
    return None if timeout is None else within(timeout)


def in_time(
    store: A2ADeliveryStore, deadline: Deadline | None, call: Coroutine[Any, Any, T]
) -> Coroutine[Any, Any, T]:
    """The call, which asks the store; StoreError if that takes much longer than the deadline."""
    if deadline is None or not store.capabilities.shared:  # what is not shared does not keep us
        return call
    return _by(deadline, call)


async def _by(deadline: Deadline, call: Coroutine[Any, Any, T]) -> T:
    try:
        return await by(deadline, call)
    except TimeoutError:
        raise StoreError("the store did not answer in time; the outcome is unknown") from None
