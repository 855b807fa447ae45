"""The workloads through afk.messaging, everything at its default."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from afk.messaging import AgentMailbox, Delivery, MessageBus

from ..buses import fresh, payload
from ..meter import Meter
from ..runner import Answer

AT_ONCE = 100
Consume = Callable[[AgentMailbox, int], Awaitable[None]]


async def receive(mailbox: AgentMailbox, count: int) -> None:
    """One at a time; acked once in our hands."""
    for _ in range(count):
        await mailbox.receive()


async def claim_and_ack(mailbox: AgentMailbox, count: int) -> None:
    """One at a time; each ack confirmed before the next claim."""
    for _ in range(count):
        delivery = await mailbox.claim()
        assert delivery is not None
        await delivery.ack()


async def serve(mailbox: AgentMailbox, count: int) -> None:
    """A worker with a hundred handlers."""
    over = asyncio.Event()
    done = 0

    async def handler(delivery: Delivery[Any]) -> None:
        nonlocal done
        done += 1
        if done == count:
            over.set()

    worker = asyncio.create_task(mailbox.serve(handler, concurrency=AT_ONCE))
    await over.wait()
    worker.cancel()  # what its handlers finished is acked before it ends
    await asyncio.gather(worker, return_exceptions=True)


CONSUMERS: dict[str, Consume] = {
    "receive": receive,
    "claim_and_ack": claim_and_ack,
    "serve": serve,
}


async def send(mailbox: AgentMailbox, count: int, tasks: int, meter: Meter | None = None) -> None:
    """`count` messages from `tasks` tasks, each of which awaits each of its sends."""

    async def some(first: int) -> None:
        for number in range(first, count, tasks):
            call = mailbox.send("receiver", payload(number))
            await (meter.timed(call) if meter else call)

    await asyncio.gather(*[some(first) for first in range(tasks)])


@asynccontextmanager
async def pair(store: str) -> AsyncIterator[tuple[MessageBus, AgentMailbox, AgentMailbox]]:
    """A bus with a sender and a receiver."""
    async with fresh(store) as bus:
        yield bus, await bus.register("sender"), await bus.register("receiver")


async def stream(store: str, count: int, tasks: int, consumer: str) -> AsyncIterator[Answer]:
    """W1, W1b, W3: senders and a receiver beside each other."""
    async with pair(store) as (_, sender, receiver):
        meter = Meter()
        await asyncio.gather(
            CONSUMERS[consumer](receiver, count),
            send(sender, count, tasks, meter),
        )
        yield meter.answer(count)


async def drain(store: str, count: int, tasks: int, consumer: str) -> AsyncIterator[Answer]:
    """W5: everything is sent before anyone receives."""
    async with pair(store) as (_, sender, receiver):
        meter = Meter()
        await send(sender, count, tasks, meter)
        await CONSUMERS[consumer](receiver, count)
        yield meter.answer(count)


async def round_trip(store: str, count: int) -> AsyncIterator[Answer]:
    """W2: request and answer, one after the other."""
    async with pair(store) as (_, sender, receiver):

        async def handler(delivery: Delivery[Any]) -> Any:
            return delivery.message.content

        worker = asyncio.create_task(receiver.serve(handler))
        meter = Meter()
        for number in range(count):
            await meter.timed(sender.request("receiver", payload(number)))
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        yield meter.answer(count)


async def broadcast(store: str, count: int, agents: int) -> AsyncIterator[Answer]:
    """W4: `count` broadcasts, each to `agents` that wait for it."""
    async with fresh(store) as bus:
        sender = await bus.register("sender")
        mailboxes = [await bus.register(f"agent-{number}") for number in range(agents)]
        meter = Meter()
        readers = [asyncio.create_task(receive(mailbox, count)) for mailbox in mailboxes]
        for number in range(count):
            await meter.timed(sender.broadcast(payload(number)))
        await asyncio.gather(*readers)
        yield meter.answer(count * agents)
