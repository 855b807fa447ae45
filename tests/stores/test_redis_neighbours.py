"""Callers share a link, a script and a store: one's trouble is nobody else's."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis import asyncio as aioredis

from afk.messaging import (
    AgentMessage,
    InvalidMessageError,
    MessageBus,
    RedisA2ADeliveryStore,
    connect,
)
from afk.messaging.lifecycle import Extend
from afk.messaging.records import letter_record
from afk.messaging.sending import to_send
from afk.messaging.settings import Settings
from afk.messaging.store import Box, Claim, Turn
from afk.messaging.testing.servers import Server
from afk.messaging.testing.steps import until


def store_at(server: Server, **options: Any) -> RedisA2ADeliveryStore:
    client = aioredis.Redis.from_url(server.url)
    return RedisA2ADeliveryStore(client, namespace=uuid.uuid4().hex, **options)


@pytest.fixture
async def store(redis_server: Server) -> AsyncIterator[RedisA2ADeliveryStore]:
    store = store_at(redis_server)
    await store.open()
    yield store
    await store.close()


async def test_a_cancelled_send_disturbs_nobody_later(redis_server: Server) -> None:
    async with MessageBus(store_at(redis_server, patience=0.5)) as bus:
        mailbox = await bus.register("bob")
        link = bus._core.store._here.link
        for ticks in range(8):
            sending = asyncio.create_task(mailbox.send("bob", "perhaps"))
            for _ in range(ticks):
                await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait([sending])
        connection = link._connection
        await until(lambda: not link._pending, "nothing is waited for")
        end = asyncio.get_running_loop().time() + 1.0
        while asyncio.get_running_loop().time() < end:
            await mailbox.send("bob", "surely")
        assert link._connection is connection


async def test_what_cannot_be_sent_fails_its_caller_alone(redis_server: Server) -> None:
    async with MessageBus(store_at(redis_server, patience=3.0)) as bus:
        mailbox = await bus.register("bob")

        async def others() -> None:
            for number in range(50):
                await mailbox.send("bob", number)

        sending = asyncio.create_task(others())
        for _ in range(5):
            with pytest.raises(InvalidMessageError):
                await bus.get("\ud800")
        await sending
        assert await mailbox.message_count() == 50


async def test_a_store_is_closed_and_opened_at_the_same_time(redis_server: Server) -> None:
    before = asyncio.all_tasks()
    store = store_at(redis_server)
    for ticks in range(12):
        leaving, coming = MessageBus(store), MessageBus(store)
        await (await leaving.register("bob")).receive(timeout=0.01)
        closing = asyncio.create_task(leaving.aclose())
        for _ in range(ticks):
            await asyncio.sleep(0)
        mailbox = await coming.register("bob")
        await mailbox.send("bob", ticks)
        message = await mailbox.receive(timeout=5)
        assert message is not None
        assert message.content == ticks
        await closing
        await coming.aclose()
    await until(lambda: asyncio.all_tasks() <= before, "no task is left")


async def test_a_cancelled_closing_ends_all_the_same(redis_server: Server) -> None:
    before = asyncio.all_tasks()
    for ticks in range(10):
        bus = MessageBus(store_at(redis_server))
        await (await bus.register("bob")).receive(timeout=0.01)
        closing = asyncio.create_task(bus.aclose())
        for _ in range(ticks):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await bus.aclose()
    await until(lambda: asyncio.all_tasks() <= before, "no task is left")


async def test_a_reopened_store_knows_an_emptied_server(redis_server: Server) -> None:
    client = aioredis.Redis.from_url(redis_server.url)
    store = store_at(redis_server)
    async with MessageBus(store) as bus:
        await bus.register("a"), await bus.register("b")
        assert await bus.agents() == ["a", "b"]
    async for key in client.scan_iter(f"{store._here._prefix}*"):
        await client.delete(key)
    await client.aclose()
    async with MessageBus(store) as bus:
        await bus.register("c"), await bus.register("d")
        assert await bus.agents() == ["c", "d"]


async def test_the_ears_outlive_any_failure(redis_server: Server) -> None:
    name = uuid.uuid4().hex
    async with (
        connect(f"{redis_server.url}?namespace={name}") as here,
        connect(f"{redis_server.url}?namespace={name}") as there,
    ):
        mailbox, sender = await here.register("bob"), await there.register("bob")
        waiting = asyncio.create_task(mailbox.receive(timeout=20))
        presence = here._core.store._here
        await until(lambda: presence.ears._connection is not None, "it listens")
        follow, failures = presence._place.follow, []

        async def fails_once() -> Any:
            if not failures:
                failures.append(1)
                raise ValueError("no token now")
            return await follow()

        presence._place.follow = fails_once
        presence.ears.renew()
        await until(lambda: len(failures) == 1, "it has failed")
        await until(lambda: presence.ears._connection is not None, "it listens again")
        await sender.send("bob", "heard")
        async with asyncio.timeout(5):
            message = await waiting
        assert message is not None


async def test_edges_of_the_port_are_answered(store: RedisA2ADeliveryStore) -> None:
    await store.bind(Box(name="bob"))
    record = letter_record(AgentMessage("ada", "bob", "hi"))
    assert await store.put(()) == ()
    [verdict] = await store.put((Turn(sends=(to_send(record, Settings()),)),))
    assert verdict.refusal is None
    [leased] = (await store.claim(Claim(mailbox="bob"))).leased
    [verdict] = await store.put((Turn(token=leased.token),))
    assert verdict.refusal is None
    for token in (f"{record.id}.{2**70}", "", "no token", f"{record.id}.-1"):
        [verdict] = await store.put((Turn(token=token, outcome=Extend(1)),))
        assert verdict.refusal is not None
        assert verdict.refusal.kind == "lease_lost"


async def test_who_goes_on_waiting_goes_on_being_heard(redis_server: Server) -> None:
    store = store_at(redis_server)
    store.poll = 0.1
    client = aioredis.Redis.from_url(redis_server.url)
    async with MessageBus(store) as bus:
        mailbox = await bus.register("bob")
        waiting = asyncio.create_task(mailbox.receive(timeout=20))
        ear = f"{store._here._prefix}ears:mail:bob"

        async def is_noted() -> bool:
            return await client.pttl(ear) > 60_000

        await until(is_noted, "it is noted who waits")
        await client.pexpire(ear, 5_000)
        await until(is_noted, "and noted again before that is forgotten", 3)
        await mailbox.send("bob", "heard")
        assert await waiting is not None
    await client.aclose()
