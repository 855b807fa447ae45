"""The workloads over streams in redis-py: a stream for each mailbox, read by a consumer group.

What is read stays pending for its reader until it is acked; then it is deleted, since nobody else
reads it. A broadcast is one entry of a stream which each agent reads in a group of its own; such
an entry is acked by each, and nobody deletes it. No keys, fences or retries; what a dead reader
held waits until another claims it.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from redis.asyncio import Redis

from . import over, over_redis
from .over import Content, Taken

_TOPIC = "everyone"
_WAIT = 5000
"""Milliseconds a server lets a reader wait before it asks again."""


class Streams:
    """XADD, XREADGROUP, XACK with XDEL; a batch is a pipeline of XADD, or many ids to a command."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._topic = False

    async def open(self, mailboxes: list[str], topic: bool) -> None:
        self._topic = topic
        for mailbox in mailboxes:
            await self._client.xgroup_create(self._stream(mailbox), mailbox, "0", mkstream=True)

    def _stream(self, mailbox: str) -> str:
        return _TOPIC if self._topic else mailbox

    async def put(self, mailbox: str, contents: list[Content]) -> None:
        if len(contents) == 1:
            await self._client.xadd(mailbox, {"body": json.dumps(contents[0])})
            return
        pipeline = self._client.pipeline(transaction=False)
        for content in contents:
            pipeline.xadd(mailbox, {"body": json.dumps(content)})
        await pipeline.execute()

    async def spread(self, content: Content) -> None:
        await self.put(_TOPIC, [content])

    async def take(self, mailbox: str, limit: int) -> list[Taken]:
        stream = self._stream(mailbox)
        found: Any = None
        while not found:
            found = await self._client.xreadgroup(
                mailbox, "reader", {stream: ">"}, count=limit, block=_WAIT
            )
        ((_, entries),) = found
        return [(number, json.loads(fields[b"body"])) for number, fields in entries]

    async def ack(self, mailbox: str, taken: list[Taken]) -> None:
        numbers = [number for number, _ in taken]
        if self._topic:
            await self._client.xack(_TOPIC, mailbox, *numbers)
            return
        pipeline = self._client.pipeline(transaction=False)
        pipeline.xack(mailbox, mailbox, *numbers)
        pipeline.xdel(mailbox, *numbers)
        await pipeline.execute()


fresh = partial(over_redis.fresh, Streams)
stream = partial(over.stream, fresh)
drain = partial(over.drain, fresh)
round_trip = partial(over.round_trip, fresh)
broadcast = partial(over.broadcast, fresh)
