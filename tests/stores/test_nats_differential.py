"""The NATS store does what the memory store does, call by call."""

from __future__ import annotations

import random
from typing import Any

import pytest

from afk.messaging import InMemoryA2ADeliveryStore, NATSA2ADeliveryStore
from afk.messaging.store import A2ADeliveryStore
from afk.messaging.stores.nats.replica import Replica
from afk.messaging.testing.clock import FakeClock
from afk.messaging.testing.servers import NATS
from proof.parts.model.differential import differ

from .over_nats import space


def memory(clock: FakeClock) -> A2ADeliveryStore:
    return InMemoryA2ADeliveryStore(clock=clock)


@pytest.mark.parametrize("seed", [1, 2, 3, None])
async def test_the_same_calls_have_the_same_answers(
    nats_server: NATS, seed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Replica, "least_log", 20_000)

    def over_nats(clock: FakeClock) -> A2ADeliveryStore:
        return NATSA2ADeliveryStore(nats_server.url, namespace=space(), clock=clock, patience=50.0)

    await differ(memory, over_nats, random.randrange(10**6) if seed is None else seed)


async def test_two_processes_are_as_one(nats_server: NATS) -> None:
    namespace = space()

    class Both:
        """Two stores at one place, each asked in turn."""

        def __init__(self, clock: FakeClock) -> None:
            self._stores = [
                NATSA2ADeliveryStore(
                    nats_server.url, namespace=namespace, clock=clock, patience=50.0
                )
                for _ in range(2)
            ]

        def __getattr__(self, name: str) -> Any:
            self._stores.reverse()
            return getattr(self._stores[0], name)

        async def open(self) -> None:
            for store in self._stores:
                await store.open()

        async def close(self) -> None:
            for store in self._stores:
                await store.close()

    await differ(memory, Both, random.randrange(10, 10**6))
