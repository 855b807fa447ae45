"""The workloads over asyncio.Queue: no id, no lease, no ack, nothing kept. The limit in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from ..buses import payload, percentile
from ..runner import Answer

Queue = asyncio.Queue[dict[str, Any]]


async def _take(queue: Queue, count: int) -> None:
    for _ in range(count):
        await queue.get()


async def _fill(queue: Queue, count: int, tasks: int) -> None:
    async def some(first: int) -> None:
        for number in range(first, count, tasks):
            await queue.put(payload(number))

    await asyncio.gather(*[some(first) for first in range(tasks)])


async def stream(count: int, tasks: int) -> AsyncIterator[Answer]:
    """W1, W1b, W3."""
    queue = Queue()
    begin = time.perf_counter()
    await asyncio.gather(_take(queue, count), _fill(queue, count, tasks))
    yield {"value": count / (time.perf_counter() - begin)}


async def drain(count: int, tasks: int) -> AsyncIterator[Answer]:
    """W5."""
    queue = Queue()
    begin = time.perf_counter()
    await _fill(queue, count, tasks)
    await _take(queue, count)
    yield {"value": count / (time.perf_counter() - begin)}


async def round_trip(count: int) -> AsyncIterator[Answer]:
    """W2."""
    there, back = Queue(), Queue()

    async def answer() -> None:
        while True:
            await back.put(await there.get())

    worker = asyncio.create_task(answer())
    took = []
    for number in range(count):
        begin = time.perf_counter()
        await there.put(payload(number))
        await back.get()
        took.append(time.perf_counter() - begin)
    worker.cancel()
    yield {"value": percentile(took, 0.5) * 1e6}


async def broadcast(count: int, agents: int) -> AsyncIterator[Answer]:
    """W4."""
    queues = [Queue() for _ in range(agents)]
    begin = time.perf_counter()
    readers = [asyncio.create_task(_take(queue, count)) for queue in queues]
    for number in range(count):
        message = payload(number)
        for queue in queues:
            await queue.put(message)
        await asyncio.sleep(0)
    await asyncio.gather(*readers)
    yield {"value": count * agents / (time.perf_counter() - begin)}
