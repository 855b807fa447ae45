"""What the thread that renews leases is told, where it asks for them by their tokens."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from redis import asyncio as aioredis

from afk.messaging import MessageBus, PostgresA2ADeliveryStore, RedisA2ADeliveryStore
from afk.messaging.testing.clock import FakeClock
from afk.messaging.testing.steps import AT_ONCE, claimed


def redis_store(request: pytest.FixtureRequest, clock: FakeClock) -> RedisA2ADeliveryStore:
    url = request.getfixturevalue("redis_server").url
    client = aioredis.Redis.from_url(url)
    return RedisA2ADeliveryStore(client, namespace=uuid.uuid4().hex, clock=clock)


def postgres_store(request: pytest.FixtureRequest, clock: FakeClock) -> PostgresA2ADeliveryStore:
    url = request.getfixturevalue("postgres18").url
    return PostgresA2ADeliveryStore(url, namespace=uuid.uuid4().hex, clock=clock)


@pytest.mark.parametrize("made", [redis_store, postgres_store])
async def test_a_lost_lease_costs_no_other(made: Any, request: pytest.FixtureRequest) -> None:
    """Though the message has another one by now, in the same process."""
    clock = FakeClock()
    store = made(request, clock)
    async with MessageBus(store, retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "lost")
        lost = await claimed(bob, lease=1)
        clock.advance(0.6)
        await bob.send("bob", "other")
        other = await claimed(bob, lease=1)
        clock.advance(0.6)
        again = await claimed(bob, lease=1)
        assert again.message == lost.message
        renewer = store._here._renewer()
        await renewer.open()
        try:
            asked = [(each.token, 1.0) for each in (other, lost, again)]
            assert await renewer.renew(asked) == [lost.token]
        finally:
            await renewer.close()
