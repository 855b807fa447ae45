"""A request's deadline, where the event loop is blocked at any step on its way."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from afk.messaging import MessageBus, RequestTimeoutError
from afk.messaging.core import YIELD_EVERY
from afk.messaging.store import Capabilities, Turn, Verdict
from afk.messaging.stores.memory import InMemoryA2ADeliveryStore
from afk.messaging.testing.simulation import SimulatedLoop, simulate, simulated_time


class Elsewhere(InMemoryA2ADeliveryStore):
    """A store that has to be waited for, as if it were another process."""

    capabilities: Capabilities = replace(InMemoryA2ADeliveryStore.capabilities, shared=True)

    async def put(self, turns: tuple[Turn, ...]) -> list[Verdict]:
        await asyncio.sleep(0.005)
        return await super().put(turns)


async def asked(ticks: int) -> None:
    """A request, blocked for long after so many ticks."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    async with MessageBus(Elsewhere(clock=simulated_time)) as bus:
        ann = await bus.register("ann")
        await bus.register("bob")
        for number in range(YIELD_EVERY - 1):  # after the next one a sender lets others run
            await ann.send("bob", number)
        asking = asyncio.create_task(ann.request("bob", "?", timeout=5))
        for _ in range(ticks):
            await asyncio.sleep(0)
        loop.block(20)
        with pytest.raises(RequestTimeoutError):  # and no StoreError: it was not waited for
            await asking


@pytest.mark.parametrize("ticks", range(6))
def test_a_request_may_be_blocked_at_any_step(ticks: int) -> None:
    for seed in range(10):
        simulate(asked(ticks), seed=seed)
