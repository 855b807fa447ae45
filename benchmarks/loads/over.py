"""The workloads over a server, whichever way a peer keeps its messages there.

`batch` is how many messages a take and an ack take together, and, in W1b and W5, a send too: a
sender that awaits each send cannot batch. At 1 everything is awaited one by one. Senders and
receiver share a process and its connections, as with the library.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from ..buses import payload
from ..meter import Meter
from ..runner import Answer

Content = dict[str, Any]
Taken = tuple[Any, Content]
"""What acks a message, and what it says."""


class Peer(Protocol):
    """Mailboxes on a server. What is taken stays there until it is acked."""

    async def put(self, mailbox: str, contents: list[Content]) -> None:
        """Send, together; stored when it returns."""

    async def spread(self, content: Content) -> None:
        """Send to all."""

    async def take(self, mailbox: str, limit: int) -> list[Taken]:
        """At least one; waits for it."""

    async def ack(self, mailbox: str, taken: list[Taken]) -> None:
        """Together; confirmed when it returns."""


class Fresh(Protocol):
    """What makes a peer, on a server of its own. topic: all mailboxes are for what is spread.
    connections: how many are busy at once."""

    def __call__(
        self, store: str, mailboxes: list[str], *, topic: bool = False, connections: int = 2
    ) -> AbstractAsyncContextManager[Peer]: ...


async def _fill(peer: Peer, count: int, tasks: int, batch: int, meter: Meter) -> None:
    async def some(begin: int) -> None:
        for first in range(begin * batch, count, tasks * batch):
            numbers = range(first, min(first + batch, count))
            contents = [payload(number) for number in numbers]
            await meter.timed(peer.put("receiver", contents))

    await asyncio.gather(*[some(begin) for begin in range(tasks)])


async def _consume(peer: Peer, mailbox: str, count: int, batch: int) -> None:
    while count > 0:
        taken = await peer.take(mailbox, batch)
        await peer.ack(mailbox, taken)
        count -= len(taken)


async def stream(
    fresh: Fresh, store: str, count: int, tasks: int, batch: int, together: bool = False
) -> AsyncIterator[Answer]:
    """W1, W3; with `together`, sends are batched too: W1b."""
    async with fresh(store, ["receiver"], connections=tasks + 1) as peer:
        meter = Meter()
        await asyncio.gather(
            _consume(peer, "receiver", count, batch),
            _fill(peer, count, tasks, batch if together else 1, meter),
        )
        yield meter.answer(count)


async def drain(fresh: Fresh, store: str, count: int, batch: int) -> AsyncIterator[Answer]:
    """W5."""
    async with fresh(store, ["receiver"]) as peer:
        meter = Meter()
        await _fill(peer, count, 1, batch, meter)
        await _consume(peer, "receiver", count, batch)
        yield meter.answer(count)


async def round_trip(
    fresh: Fresh, store: str, count: int, together: bool = False
) -> AsyncIterator[Answer]:
    """W2: the request and the answer are acked both, the answer before the clock stops; with
    `together`, the answer leaves beside the ack of its request."""
    async with fresh(store, ["receiver", "sender"], connections=3) as peer:

        async def serve() -> None:
            while True:
                taken = await peer.take("receiver", 1)
                answers = [content for _, content in taken]
                if together:
                    await asyncio.gather(peer.put("sender", answers), peer.ack("receiver", taken))
                else:
                    await peer.put("sender", answers)
                    await peer.ack("receiver", taken)

        worker = asyncio.create_task(serve())

        async def request(number: int) -> None:
            await peer.put("receiver", [payload(number)])
            await peer.ack("sender", await peer.take("sender", 1))

        meter = Meter()
        for number in range(count):
            await meter.timed(request(number))
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        yield meter.answer(count)


async def broadcast(
    fresh: Fresh, store: str, count: int, agents: int, batch: int
) -> AsyncIterator[Answer]:
    """W4."""
    names = [f"agent-{number}" for number in range(agents)]
    async with fresh(store, names, topic=True, connections=agents + 1) as peer:
        meter = Meter()
        readers = [asyncio.create_task(_consume(peer, name, count, batch)) for name in names]
        for number in range(count):
            await meter.timed(peer.spread(payload(number)))
        await asyncio.gather(*readers)
        yield meter.answer(count * agents)
