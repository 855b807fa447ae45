"""The workloads over lists in redis-py that are read in place: the fastest form for one consumer.

Many bodies enter by one RPUSH; the reader looks at the head of the list (LRANGE) and cuts off what
it has handled (LTRIM). A crash loses nothing, but a second reader of the same list would handle
everything twice. No ids, keys, fences, retries or history.
"""

from __future__ import annotations

import json
from functools import partial

from . import over, over_redis
from .over import Content, Taken
from .redis_lists import WAIT, Lists


class Trims(Lists):
    """RPUSH, LRANGE, LTRIM: one command each, however many messages."""

    async def put(self, mailbox: str, contents: list[Content]) -> None:
        await self._client.rpush(mailbox, *[json.dumps(content) for content in contents])

    async def take(self, mailbox: str, limit: int) -> list[Taken]:
        while not (bodies := await self._client.lrange(mailbox, 0, limit - 1)):
            # Waits for a first message, and puts it back where it was.
            await self._client.blmove(mailbox, mailbox, WAIT, "LEFT", "LEFT")
        return [(body, json.loads(body)) for body in bodies]

    async def ack(self, mailbox: str, taken: list[Taken]) -> None:
        await self._client.ltrim(mailbox, len(taken), -1)


fresh = partial(over_redis.fresh, Trims)
stream = partial(over.stream, fresh)
drain = partial(over.drain, fresh)
