"""The workloads over asyncio.Queue (no id, no lease, no ack, nothing kept: the limit in memory),
over anyio's streams, which are as little, and over a lane written by hand, which promises the least
that a mailbox must."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio

from ..buses import payload
from ..meter import Meter
from ..runner import Answer
from .lane import Lane


class Stream:
    """anyio's, with no bound."""

    def __init__(self) -> None:
        streams = anyio.create_memory_object_stream[dict[str, Any]](math.inf)
        self.put, self.get = streams[0].send, streams[1].receive


Queue = asyncio.Queue[dict[str, Any]] | Stream | Lane
KINDS: dict[str, Callable[[], Queue]] = {"queue": asyncio.Queue, "anyio": Stream, "lane": Lane}
TIMED = 16
"""Every so many calls are timed: more of it would be felt here."""


async def _take(queue: Queue, count: int) -> None:
    for _ in range(count):
        await queue.get()


async def _fill(queue: Queue, count: int, tasks: int, meter: Meter) -> None:
    async def some(first: int) -> None:
        for number in range(first, count, tasks):
            if number % TIMED:
                await queue.put(payload(number))
            else:
                await meter.timed(queue.put(payload(number)))

    await asyncio.gather(*[some(first) for first in range(tasks)])


async def stream(kind: str, count: int, tasks: int) -> AsyncIterator[Answer]:
    """W1, W1b, W3."""
    queue = KINDS[kind]()
    meter = Meter()
    await asyncio.gather(_take(queue, count), _fill(queue, count, tasks, meter))
    yield meter.answer(count)


async def drain(kind: str, count: int, tasks: int) -> AsyncIterator[Answer]:
    """W5."""
    queue = KINDS[kind]()
    meter = Meter()
    await _fill(queue, count, tasks, meter)
    await _take(queue, count)
    yield meter.answer(count)


async def round_trip(kind: str, count: int) -> AsyncIterator[Answer]:
    """W2."""
    there, back = KINDS[kind](), KINDS[kind]()

    async def answer() -> None:
        while True:
            await back.put(await there.get())

    worker = asyncio.create_task(answer())

    async def request(number: int) -> None:
        await there.put(payload(number))
        await back.get()

    meter = Meter()
    for number in range(count):
        await meter.timed(request(number))
    worker.cancel()
    yield meter.answer(count)


async def broadcast(kind: str, count: int, agents: int) -> AsyncIterator[Answer]:
    """W4."""
    queues = [KINDS[kind]() for _ in range(agents)]

    async def spread(message: dict[str, Any]) -> None:
        for queue in queues:
            await queue.put(message)

    meter = Meter()
    readers = [asyncio.create_task(_take(queue, count)) for queue in queues]
    for number in range(count):
        await meter.timed(spread(payload(number)))
        await asyncio.sleep(0)
    await asyncio.gather(*readers)
    yield meter.answer(count * agents)
