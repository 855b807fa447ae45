"""Who waits for what is being sent has it in the same call to the store."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from afk.messaging import AgentMailbox, AgentMessage, Delivery, MessageBus, connect
from afk.messaging.stores.nats.lane import Lane as NATSLane
from afk.messaging.stores.postgres.batches import Single
from afk.messaging.stores.postgres.lane import Lane as PostgresLane
from afk.messaging.stores.redis.link import Link
from afk.messaging.stores.sqlite.writer import Writer
from afk.messaging.testing.steps import serving

Calls = Callable[[], int]
"""How many there have been."""

CALLS: dict[str, tuple[Any, str]] = {
    "sqlite": (Writer, "serve"),
    "redis": (Link, "_send"),
    "postgres": (PostgresLane, "_send"),
    "nats": (NATSLane, "_fly"),
}
"""What each store does once for all that leaves together."""
SERVERS = {"redis": "redis_server", "postgres": "postgres18", "nats": "nats_server"}


@pytest.fixture(params=CALLS)
def kind(request: pytest.FixtureRequest) -> str:
    store: str = request.param
    return store


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/mail.db"
    return f"{request.getfixturevalue(SERVERS[kind]).url}?namespace={uuid.uuid4().hex}"


@pytest.fixture
def calls(kind: str, monkeypatch: pytest.MonkeyPatch) -> Calls:
    owner, name = CALLS[kind]
    call = getattr(owner, name)
    number = 0

    def counted(*args: Any) -> Any:
        nonlocal number
        number += not tells_others(*args)
        return call(*args)

    monkeypatch.setattr(owner, name, counted)
    return lambda: number


def tells_others(_: Any, leaving: Any, *__: Any) -> bool:
    """Whether it only has PostgreSQL tell other processes, which nobody waits for."""
    return isinstance(leaving, Single) and leaving.call(()).name == "tell"


async def most(calls: Calls, step: Callable[[], Any], *readers: AgentMailbox) -> float:
    """What the step takes, and with it that each reader who waited has a message, most often: now
    and then a process looks around of its own accord."""
    took = []
    for _ in range(25):
        waiting = [asyncio.create_task(reader.receive(timeout=5)) for reader in readers]
        if waiting:
            await asyncio.sleep(0.01)  # until all is settled and everyone waits
        before = calls()
        await step()
        assert None not in await asyncio.gather(*waiting)
        took.append(calls() - before)
    return median(took)


async def pair(bus: MessageBus) -> Any:
    return await bus.register("ada"), await bus.register("bob")


async def test_a_message_is_stored_and_taken_in_one(url: str, calls: Calls) -> None:
    async with connect(url) as bus:
        ada, bob = await pair(bus)
        assert await most(calls, lambda: ada.send("bob", "hi"), bob) == 1


async def test_a_stream_of_messages_is_one_for_each(url: str, calls: Calls) -> None:
    """The next send, the ack of the last message and the claim of the next leave together."""
    count = 60
    async with connect(url) as bus:
        ada, bob = await pair(bus)

        async def send() -> None:
            for number in range(count):
                await ada.send("bob", number)

        before = calls()
        sending = asyncio.create_task(send())
        for _ in range(count):
            assert await bob.receive(timeout=5) is not None
        await sending
        assert calls() - before < 1.3 * count


async def test_a_request_and_its_answer_are_two(url: str, kind: str, calls: Calls) -> None:
    """The request and its claim; the answer, and the look for it, which is one of its own only on
    PostgreSQL."""

    async def answer(delivery: Delivery[AgentMessage]) -> object:
        return delivery.message.content

    async with connect(url) as bus:
        ada, bob = await pair(bus)

        async def step() -> None:
            assert (await ada.request("bob", "hi", timeout=5)).content == "hi"

        async with serving(bob, answer):
            assert await most(calls, step) == (3 if kind == "postgres" else 2)


async def test_a_broadcast_is_one(url: str, calls: Calls) -> None:
    """It does not ask for the directory again, and who waits has a copy in the same call."""
    async with connect(url) as bus:
        ada, bob = await pair(bus)
        eve = await bus.register("eve")

        async def step() -> None:
            assert len(await ada.broadcast("news")) == 2

        assert await most(calls, step, bob, eve) == 1
