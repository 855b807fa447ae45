"""The workloads over reliable lists in redis-py: one for each mailbox, and one for what is taken.

A taker moves a message from the first to the second and removes it from there when it is done, so
a crash loses nothing. No ids, keys, fences, retries or history; what a dead taker held stays
where it is until somebody moves it back by hand.
"""

from __future__ import annotations

import json
from functools import partial

from redis.asyncio import Redis

from . import over, over_redis
from .over import Content, Taken

WAIT = 5
"""Seconds a server lets a taker wait before it asks again."""


class Lists:
    """RPUSH, BLMOVE, LREM; a batch is a pipeline of RPUSH, LMOVE or LREM."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._mailboxes: list[str] = []

    async def open(self, mailboxes: list[str], topic: bool) -> None:
        self._mailboxes = mailboxes

    async def put(self, mailbox: str, contents: list[Content]) -> None:
        if len(contents) == 1:
            await self._client.rpush(mailbox, json.dumps(contents[0]))
            return
        pipeline = self._client.pipeline(transaction=False)
        for content in contents:
            pipeline.rpush(mailbox, json.dumps(content))
        await pipeline.execute()

    async def spread(self, content: Content) -> None:
        body = json.dumps(content)
        pipeline = self._client.pipeline(transaction=False)
        for mailbox in self._mailboxes:
            pipeline.rpush(mailbox, body)
        await pipeline.execute()

    async def take(self, mailbox: str, limit: int) -> list[Taken]:
        bodies = await self._move(mailbox, limit) if limit > 1 else []
        while not bodies:
            body = await self._client.blmove(mailbox, _held(mailbox), WAIT, "LEFT", "RIGHT")
            bodies = [] if body is None else [body]
        return [(body, json.loads(body)) for body in bodies]

    async def _move(self, mailbox: str, limit: int) -> list[bytes]:
        pipeline = self._client.pipeline(transaction=False)
        for _ in range(limit):
            pipeline.lmove(mailbox, _held(mailbox), "LEFT", "RIGHT")
        return [body for body in await pipeline.execute() if body is not None]

    async def ack(self, mailbox: str, taken: list[Taken]) -> None:
        if len(taken) == 1:
            await self._client.lrem(_held(mailbox), 1, taken[0][0])
            return
        pipeline = self._client.pipeline(transaction=False)
        for body, _ in taken:
            pipeline.lrem(_held(mailbox), 1, body)
        await pipeline.execute()


def _held(mailbox: str) -> str:
    return f"{mailbox}:held"


fresh = partial(over_redis.fresh, Lists)
stream = partial(over.stream, fresh)
drain = partial(over.drain, fresh)
round_trip = partial(over.round_trip, fresh)
broadcast = partial(over.broadcast, fresh)
