"""W1, W2 and W3 through FastStream, over streams: the only form of it on Redis that can ack.

The subscriber reads in a consumer group and acks after its handler (`NACK_ON_ERROR`: what failed,
or was held by a dead process, stays pending until a second subscriber claims it), so a message is
handled at least once. An answer travels by publish/subscribe: if nobody listens it is lost, and it
is not acked. Entries are not deleted. Left out: W1b and W5, since a stream has no batch of sends
(and a group sees only what came after it); W4, which would be a subscriber for each agent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from faststream import AckPolicy
from faststream.redis import RedisBroker, StreamSub

from ..buses import payload, place
from ..meter import Meter
from ..runner import Answer

Handler = Callable[[dict[str, Any]], Awaitable[Any]]


@asynccontextmanager
async def _started(store: str, handler: Handler) -> AsyncIterator[RedisBroker]:
    with place(store) as url:
        broker = RedisBroker(url, max_connections=1000, logger=None)
        line = StreamSub("receiver", group="agents", consumer="receiver")
        broker.subscriber(stream=line, ack_policy=AckPolicy.NACK_ON_ERROR)(handler)
        async with broker:
            await broker.start()
            yield broker


async def stream(store: str, count: int, tasks: int) -> AsyncIterator[Answer]:
    """W1, W3."""
    over = asyncio.Event()
    done = 0

    async def handler(content: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        if done == count:
            over.set()

    async with _started(store, handler) as broker:

        async def some(first: int) -> None:
            for number in range(first, count, tasks):
                await meter.timed(broker.publish(payload(number), stream="receiver"))

        meter = Meter()
        await asyncio.gather(*[some(first) for first in range(tasks)])
        await over.wait()
        yield meter.answer(count)


async def round_trip(store: str, count: int) -> AsyncIterator[Answer]:
    """W2."""

    async def handler(content: dict[str, Any]) -> dict[str, Any]:
        return content

    async with _started(store, handler) as broker:
        meter = Meter()
        for number in range(count):
            await meter.timed(broker.request(payload(number), stream="receiver"))
        yield meter.answer(count)
