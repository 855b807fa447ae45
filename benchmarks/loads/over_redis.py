"""The workloads as they are over redis-py, whichever way a peer keeps its messages.

`batch` is how many messages a take and an ack take in one pipeline, and, in W1b and W5, a send
too: a sender that awaits each send cannot batch. At 1 everything is awaited one by one. Senders
and receiver share a process and a pool of connections, as with the library.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from redis.asyncio import Redis

from ..buses import payload, percentile, place
from ..runner import Answer

Content = dict[str, Any]
Taken = tuple[bytes, Content]
"""What acks a message, and what it says."""


class Peer(Protocol):
    """Mailboxes in Redis. What is taken stays in Redis until it is acked."""

    def __init__(self, client: Redis) -> None: ...

    async def open(self, mailboxes: list[str], topic: bool) -> None:
        """Make them; with `topic` all of them are for what is spread."""

    async def put(self, mailbox: str, contents: list[Content]) -> None:
        """Send, in one round trip."""

    async def spread(self, content: Content) -> None:
        """Send to all, in one round trip."""

    async def take(self, mailbox: str, limit: int) -> list[Taken]:
        """At least one; waits for it."""

    async def ack(self, mailbox: str, taken: list[Taken]) -> None:
        """In one round trip."""


@asynccontextmanager
async def _fresh(
    kind: type[Peer], mailboxes: list[str], topic: bool = False, connections: int = 2
) -> AsyncIterator[Peer]:
    with place("redis") as url:
        async with Redis.from_url(url, max_connections=1000) as client:
            peer = kind(client)
            await peer.open(mailboxes, topic)
            await asyncio.gather(*[client.ping() for _ in range(connections)])  # opens them
            yield peer


async def _fill(peer: Peer, count: int, tasks: int, batch: int) -> None:
    async def some(begin: int) -> None:
        for first in range(begin * batch, count, tasks * batch):
            numbers = range(first, min(first + batch, count))
            await peer.put("receiver", [payload(number) for number in numbers])

    await asyncio.gather(*[some(begin) for begin in range(tasks)])


async def _consume(peer: Peer, mailbox: str, count: int, batch: int) -> None:
    while count > 0:
        taken = await peer.take(mailbox, batch)
        await peer.ack(mailbox, taken)
        count -= len(taken)


async def stream(
    kind: type[Peer], count: int, tasks: int, batch: int, together: bool = False
) -> AsyncIterator[Answer]:
    """W1, W3; with `together`, sends are batched too: W1b."""
    async with _fresh(kind, ["receiver"], connections=tasks + 1) as peer:
        begin = time.perf_counter()
        await asyncio.gather(
            _consume(peer, "receiver", count, batch),
            _fill(peer, count, tasks, batch if together else 1),
        )
        yield {"value": count / (time.perf_counter() - begin)}


async def drain(kind: type[Peer], count: int, batch: int) -> AsyncIterator[Answer]:
    """W5."""
    async with _fresh(kind, ["receiver"]) as peer:
        begin = time.perf_counter()
        await _fill(peer, count, 1, batch)
        await _consume(peer, "receiver", count, batch)
        yield {"value": count / (time.perf_counter() - begin)}


async def round_trip(kind: type[Peer], count: int) -> AsyncIterator[Answer]:
    """W2: the request and the answer are acked both, the answer before the clock stops."""
    async with _fresh(kind, ["receiver", "sender"]) as peer:

        async def serve() -> None:
            while True:
                taken = await peer.take("receiver", 1)
                await peer.put("sender", [content for _, content in taken])
                await peer.ack("receiver", taken)

        worker = asyncio.create_task(serve())
        took = []
        for number in range(count):
            begin = time.perf_counter()
            await peer.put("receiver", [payload(number)])
            await peer.ack("sender", await peer.take("sender", 1))
            took.append(time.perf_counter() - begin)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        yield {"value": percentile(took, 0.5) * 1e6}


async def broadcast(kind: type[Peer], count: int, agents: int, batch: int) -> AsyncIterator[Answer]:
    """W4."""
    names = [f"agent-{number}" for number in range(agents)]
    async with _fresh(kind, names, topic=True, connections=agents + 1) as peer:
        begin = time.perf_counter()
        readers = [asyncio.create_task(_consume(peer, name, count, batch)) for name in names]
        for number in range(count):
            await peer.spread(payload(number))
        await asyncio.gather(*readers)
        yield {"value": count * agents / (time.perf_counter() - begin)}
