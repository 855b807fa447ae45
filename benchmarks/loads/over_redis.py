"""Peers on redis-py: a server of their own, which writes to disk first, and a pool to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from redis.asyncio import Redis

from ..buses import place
from .over import Peer


class RedisPeer(Peer, Protocol):
    """A peer that is made of a client."""

    def __init__(self, client: Redis) -> None: ...

    async def open(self, mailboxes: list[str], topic: bool) -> None:
        """Make them; with `topic` all of them are for what is spread."""


@asynccontextmanager
async def fresh(
    kind: type[RedisPeer],
    store: str,
    mailboxes: list[str],
    *,
    topic: bool = False,
    connections: int = 2,
) -> AsyncIterator[Peer]:
    """A peer of that kind, its connections open."""
    with place(store) as url:
        async with Redis.from_url(url, max_connections=1000) as client:
            peer = kind(client)
            await peer.open(mailboxes, topic)
            await asyncio.gather(*[client.ping() for _ in range(connections)])  # opens them
            yield peer
