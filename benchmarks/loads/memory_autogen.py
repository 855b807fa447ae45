"""The workloads through autogen-core's runtime in one process.

A message is published on a topic that its reader subscribes to; a request is sent to its agent,
whose handler returns the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from autogen_core import (
    AgentId,
    MessageContext,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    TopicId,
    TypeSubscription,
    message_handler,
)

from ..buses import payload
from ..meter import Meter
from ..runner import Answer


@dataclass
class Letter:
    """What agents tell each other."""

    content: dict[str, Any]


class Reader(RoutedAgent):
    """Counts what it is told, and answers with it."""

    def __init__(self, told: Callable[[], None]) -> None:
        super().__init__("a reader")
        self._told = told

    @message_handler
    async def handle(self, message: Letter, ctx: MessageContext) -> Letter:
        """Be told."""
        self._told()
        return message


class Count:
    """Waits until so many were told."""

    def __init__(self, expected: int) -> None:
        self._left = expected
        self._over = asyncio.Event()

    def told(self) -> None:
        """One more."""
        self._left -= 1
        if not self._left:
            self._over.set()

    async def over(self) -> None:
        """All of them."""
        await self._over.wait()


async def _runtime(names: list[str], topic: str, told: Callable[[], None]) -> Any:
    runtime = SingleThreadedAgentRuntime()
    for name in names:
        await Reader.register(runtime, name, lambda: Reader(told))
        await runtime.add_subscription(TypeSubscription(topic, name))
    return runtime


async def _fill(runtime: Any, count: int, tasks: int, meter: Meter) -> None:
    async def some(first: int) -> None:
        for number in range(first, count, tasks):
            letter = Letter(payload(number))
            await meter.timed(runtime.publish_message(letter, TopicId("mail", "default")))

    await asyncio.gather(*[some(first) for first in range(tasks)])


async def stream(count: int, tasks: int) -> AsyncIterator[Answer]:
    """W1, W1b, W3."""
    handled = Count(count)
    runtime = await _runtime(["receiver"], "mail", handled.told)
    runtime.start()
    meter = Meter()
    await _fill(runtime, count, tasks, meter)
    await handled.over()
    yield meter.answer(count)
    await runtime.stop()


async def drain(count: int, tasks: int) -> AsyncIterator[Answer]:
    """W5."""
    handled = Count(count)
    runtime = await _runtime(["receiver"], "mail", handled.told)
    meter = Meter()
    await _fill(runtime, count, tasks, meter)
    runtime.start()
    await handled.over()
    yield meter.answer(count)
    await runtime.stop()


async def round_trip(count: int) -> AsyncIterator[Answer]:
    """W2."""
    runtime = await _runtime(["receiver"], "mail", lambda: None)
    runtime.start()
    receiver = AgentId("receiver", "default")
    meter = Meter()
    for number in range(count):
        await meter.timed(runtime.send_message(Letter(payload(number)), receiver))
    yield meter.answer(count)
    await runtime.stop()


async def broadcast(count: int, agents: int) -> AsyncIterator[Answer]:
    """W4."""
    handled = Count(count * agents)
    names = [f"agent-{number}" for number in range(agents)]
    runtime = await _runtime(names, "mail", handled.told)
    runtime.start()
    meter = Meter()
    await _fill(runtime, count, 1, meter)
    await handled.over()
    yield meter.answer(count * agents)
    await runtime.stop()
