"""The public API as users write it; checked by mypy, never run."""

from dataclasses import dataclass
from typing import assert_type

import redis.asyncio

from afk.messaging import (
    AgentMailbox,
    AgentMessage,
    Delivery,
    InternalA2AEnvelope,
    InternalA2AProtocol,
    MessageBus,
    Receipt,
    RedisMessageBus,
    RetryPolicy,
    connect,
)
from afk.messaging.edges import logs, otel
from afk.messaging.store import Durability


@dataclass
class Task:
    topic: str


async def letters() -> None:
    async with connect("sqlite:///team.db", lease=10.0, retry=RetryPolicy(max_attempts=3)) as bus:
        mailbox = await bus.register("writer", ordered=True, type=Task)
        assert_type(mailbox, AgentMailbox)
        receipt = await mailbox.send("editor", Task("tides"), priority="high", ttl=5, delay=1.5)
        assert_type(receipt, Receipt[AgentMessage])
        assert_type(await receipt.settled(timeout=1), str)
        message = await mailbox.receive(timeout=1)
        assert_type(message, AgentMessage | None)
        if message is not None:
            await bus.deliver(message.reply("thanks"))
        answer = await mailbox.request("editor", {"q": 1}, timeout=5)
        assert_type(answer, AgentMessage)
        await mailbox.send("editor", 1, prioritty="high")  # type: ignore[call-arg]


async def servers(client: redis.asyncio.Redis) -> None:
    async with RedisMessageBus(client, namespace="blue", durability="disk", patience=5.0) as bus:
        assert_type(bus.durability, Durability)
    RedisMessageBus(client, durability="disc")  # type: ignore[arg-type]


async def handler(delivery: Delivery[AgentMessage]) -> dict[str, str]:
    await delivery.send("editor", {"done": True}, thread_id="t")
    async with delivery.transaction() as connection:
        connection.execute("SELECT 1")
    return {"ok": delivery.message.sender}


async def work(mailbox: AgentMailbox) -> None:
    await mailbox.serve(handler, concurrency=4, timeout=60, grace=1)
    async for delivery in mailbox.deliveries(lease=5):
        async with delivery:
            assert_type(delivery.attempt, int)


def observed() -> None:
    assert_type(otel.instrument(RedisMessageBus(redis.asyncio.Redis())), RedisMessageBus)
    assert_type(logs.instrument(connect("memory://"), level=10, bodies=True), MessageBus)


async def envelopes(envelope: InternalA2AEnvelope) -> None:
    protocol = InternalA2AProtocol()
    assert_type(await protocol.request(envelope, timeout=1), InternalA2AEnvelope)
    assert_type(await protocol.send(envelope), Receipt[InternalA2AEnvelope])
