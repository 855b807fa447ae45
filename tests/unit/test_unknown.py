"""An unknown agent: the nearest names are a courtesy that no call waits or fails for."""

from __future__ import annotations

import asyncio
import time

import pytest

from afk.messaging import InMemoryA2ADeliveryStore, MessageBus, StoreError, UnknownAgentError
from afk.messaging.store import Capabilities, Roster


class Lost(InMemoryA2ADeliveryStore):
    """Nobody reaches its directory."""

    async def agents(self) -> Roster:
        raise StoreError("not reached")


class Slow(InMemoryA2ADeliveryStore):
    """As far away as a server, and its directory does not answer."""

    capabilities = Capabilities(durability="memory", shared=True)

    async def agents(self) -> Roster:
        await asyncio.sleep(60)
        raise AssertionError


async def test_the_nearest_names_are_told() -> None:
    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        ada = await bus.register("ada")
        with pytest.raises(UnknownAgentError, match="'ada'"):
            await ada.send("adda", "x")


async def test_a_refusal_is_told_though_the_names_cannot_be_read() -> None:
    async with MessageBus(Lost()) as bus:
        ada = await bus.register("ada")
        with pytest.raises(UnknownAgentError):
            await ada.send("adda", "x")


async def test_a_request_does_not_wait_for_the_names_beyond_its_time() -> None:
    async with MessageBus(Slow()) as bus:
        ada = await bus.register("ada")
        began = time.monotonic()
        with pytest.raises(UnknownAgentError):
            await ada.request("adda", "x", timeout=0.05)
        assert time.monotonic() - began < 10
