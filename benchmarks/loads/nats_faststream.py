"""W1, W2 and W3 through FastStream, over JetStream.

The subscriber reads through a pull consumer and acks after its handler (`NACK_ON_ERROR`: what
failed is delivered again), so a message is handled at least once; it does not wait until the server
has the ack. An answer is a plain message: if nobody listens it is lost, and it is not acked. Left
out: W1b and W5, since there is no batch of sends; W4, which would be a subscriber for each agent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import RetentionPolicy, StorageType

from ..buses import payload, place
from ..meter import Meter
from ..runner import Answer

Handler = Callable[[dict[str, Any]], Awaitable[Any]]
_STREAM = "mail"
_SUBJECT = "mail.receiver"
_PATIENCE = 60
"""Seconds for an answer of the server; the default is half a second."""


@asynccontextmanager
async def _started(store: str, handler: Handler, batch: int = 1) -> AsyncIterator[NatsBroker]:
    with place(store) as url:
        broker = NatsBroker(url, logger=None)
        subscriber = broker.subscriber(
            _SUBJECT,
            stream=JStream(_STREAM, retention=RetentionPolicy.WORK_QUEUE, storage=StorageType.FILE),
            durable="receiver",
            pull_sub=PullSub(batch_size=batch),
            ack_policy=AckPolicy.NACK_ON_ERROR,
        )
        subscriber(handler)
        async with broker:
            await broker.start()
            yield broker


async def stream(store: str, count: int, tasks: int, batch: int) -> AsyncIterator[Answer]:
    """W1, W3. batch: how many messages a fetch may bring."""
    over = asyncio.Event()
    done = 0

    async def handler(content: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        if done == count:
            over.set()

    async with _started(store, handler, batch) as broker:

        async def some(first: int) -> None:
            for number in range(first, count, tasks):
                content = payload(number)
                await meter.timed(
                    broker.publish(content, _SUBJECT, stream=_STREAM, timeout=_PATIENCE)
                )

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
            await meter.timed(
                broker.request(payload(number), _SUBJECT, stream=_STREAM, timeout=_PATIENCE)
            )
        yield meter.answer(count)
