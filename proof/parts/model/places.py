"""Stores at places of their own, for as many examples as one likes."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from afk.messaging import (
    A2ADeliveryStore,
    InMemoryA2ADeliveryStore,
    NATSA2ADeliveryStore,
    PostgresA2ADeliveryStore,
    RedisA2ADeliveryStore,
    SQLiteA2ADeliveryStore,
)
from afk.messaging.testing import FakeClock

from ...trial import Ground

Make = Callable[[FakeClock], A2ADeliveryStore]


def maker(ground: Ground) -> Make:
    """Makes a store at a place of its own, judged by the clock it is given."""

    def make(clock: FakeClock) -> A2ADeliveryStore:
        name = uuid.uuid4().hex
        match ground.store:
            case "memory":
                return InMemoryA2ADeliveryStore(clock=clock)
            case "sqlite":
                file = ground.folder / f"{name}.db"
                return SQLiteA2ADeliveryStore(file, durability="process", clock=clock)
            case "redis":
                import redis.asyncio

                client = redis.asyncio.Redis.from_url(ground.url)
                return RedisA2ADeliveryStore(client, namespace=name, clock=clock)
            case "postgres":
                return PostgresA2ADeliveryStore(ground.url, namespace=name, clock=clock)
            case "nats":
                return NATSA2ADeliveryStore(ground.url, namespace=name, clock=clock)
        raise ValueError(ground.store)

    return make
