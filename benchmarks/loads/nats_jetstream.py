"""The workloads over JetStream in nats-py: a stream in a file, a durable pull consumer a mailbox.

What a consumer was given is its own until it is acked, explicitly; then the stream, a work queue,
drops it. Every publish waits for the server, and so does the ack. For a broadcast one message is
published to one subject, which each agent reads through a consumer of its own; the stream keeps it
until all have acked it (retention by interest). No keys, fences or history; what a dead reader held
is delivered again after half a minute.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import nats
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, RetentionPolicy, StorageType, StreamConfig

from ..buses import place
from . import over
from .over import Content, Taken

_STREAM = "mail"
_TOPIC = "mail.everyone"
_WAIT = 5
"""Seconds a request of a taker stays with the server before it asks again."""


class JetStream:
    """A batch is many publishes under way at once, a fetch, and acks the last of which waits: the
    server handles a connection's acks to a consumer in their order."""

    def __init__(self, context: JetStreamContext) -> None:
        self._stream = context
        self._readers: dict[str, JetStreamContext.PullSubscription] = {}

    async def open(self, mailboxes: list[str], topic: bool) -> None:
        """Make the stream, and a consumer for each mailbox."""
        config = StreamConfig(
            name=_STREAM,
            subjects=[f"{_STREAM}.*"],
            storage=StorageType.FILE,
            num_replicas=1,
            retention=RetentionPolicy.INTEREST if topic else RetentionPolicy.WORK_QUEUE,
        )
        await self._stream.add_stream(config)
        for mailbox in mailboxes:
            self._readers[mailbox] = await self._stream.pull_subscribe(
                _TOPIC if topic else f"{_STREAM}.{mailbox}",
                durable=mailbox,
                stream=_STREAM,
                config=ConsumerConfig(),  # explicit acks, 30 s to send them
            )

    async def put(self, mailbox: str, contents: list[Content]) -> None:
        subject = f"{_STREAM}.{mailbox}"
        if len(contents) == 1:
            await self._stream.publish(subject, json.dumps(contents[0]).encode())
            return
        bodies = [json.dumps(content).encode() for content in contents]
        await asyncio.gather(*[await self._stream.publish_async(subject, body) for body in bodies])

    async def spread(self, content: Content) -> None:
        await self._stream.publish(_TOPIC, json.dumps(content).encode())

    async def take(self, mailbox: str, limit: int) -> list[Taken]:
        messages: list[Msg] = []
        while not messages:
            with suppress(nats.errors.TimeoutError):
                messages = await self._readers[mailbox].fetch(limit, timeout=_WAIT)
        return [(message, json.loads(message.data)) for message in messages]

    async def ack(self, mailbox: str, taken: list[Taken]) -> None:
        *others, last = [message for message, _ in taken]
        for message in others:
            await message.ack()
        await last.ack_sync()


@asynccontextmanager
async def fresh(
    store: str, mailboxes: list[str], *, topic: bool = False, connections: int = 2
) -> AsyncIterator[JetStream]:
    """A stream on a server of its own; one connection is enough for all."""
    with place(store) as url:
        async with await nats.connect(url) as client:
            peer = JetStream(client.jetstream())
            await peer.open(mailboxes, topic)
            yield peer


stream = partial(over.stream, fresh)
drain = partial(over.drain, fresh)
round_trip = partial(over.round_trip, fresh)
broadcast = partial(over.broadcast, fresh)
