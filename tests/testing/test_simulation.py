"""Simulated time and chance."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from afk.messaging import AgentMessage, MessageBus
from afk.messaging.stores.memory import InMemoryA2ADeliveryStore
from afk.messaging.testing.simulation import (
    EPOCH,
    SimulatedLoop,
    StuckError,
    simulate,
    simulated_time,
)


async def race() -> list[int]:
    """Who comes when, of those who are ready at the same time."""
    came = []

    async def run(number: int) -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            came.append(number)

    await asyncio.gather(*(run(number) for number in range(4)))
    return came


def test_time_jumps_to_what_comes_next() -> None:
    async def wait() -> float:
        before = simulated_time()
        await asyncio.sleep(86_400)
        return simulated_time() - before

    began = time.monotonic()
    assert simulate(wait(), 1) == pytest.approx(86_400, abs=0.001)
    assert time.monotonic() - began < 60


def test_the_same_seed_is_the_same_run_and_others_are_not() -> None:
    runs = {tuple(simulate(race(), seed)) for seed in range(20)}
    assert len(runs) > 10
    assert simulate(race(), 7) == simulate(race(), 7)


def test_what_one_callback_asks_for_keeps_its_order() -> None:
    async def ask() -> list[int]:
        came: list[int] = []
        for number in range(5):
            asyncio.get_running_loop().call_soon(came.append, number)
        await asyncio.sleep(1)
        return came

    assert all(simulate(ask(), seed) == [0, 1, 2, 3, 4] for seed in range(20))


def test_ids_and_random_numbers_come_of_the_seed_and_only_inside() -> None:
    async def make() -> tuple[str, float]:
        return AgentMessage("a", "b", 1).id, random.random()

    assert simulate(make(), 1) == simulate(make(), 1) != simulate(make(), 2)
    random.seed(5)
    expected = random.random()
    random.seed(5)
    inside, _ = simulate(make(), 1)
    assert random.random() == expected
    assert AgentMessage("a", "b", 1).id[:12] < inside[:12]  # ids are of the real time again


def test_a_set_of_tasks_has_one_order() -> None:
    async def names() -> list[str]:
        tasks = {asyncio.create_task(asyncio.sleep(1), name=str(n)) for n in range(50)}
        order = [task.get_name() for task in tasks]
        await asyncio.wait(tasks)
        return order

    assert simulate(names(), 1) == simulate(names(), 1)


def test_a_bus_lives_there() -> None:
    async def story() -> tuple[object, float]:
        async with MessageBus(InMemoryA2ADeliveryStore(clock=simulated_time)) as bus:
            sender, reader = await bus.register("sender"), await bus.register("reader")
            await sender.send("reader", "later", delay=3600)
            message = await reader.receive()
            assert message is not None
            return message.content, simulated_time() - EPOCH

    content, took = simulate(story(), 3)
    assert (content, took) == ("later", pytest.approx(3600, abs=0.01))


def test_a_blocked_loop_makes_timers_late() -> None:
    async def late() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        loop.call_later(1, loop.block, 10)
        await asyncio.sleep(5)
        return loop.time()

    assert simulate(late(), 1) == pytest.approx(11, abs=0.001)


def test_waiting_for_what_cannot_come_is_an_error() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(StuckError):
        simulate(wait(), 1)


def test_what_never_ends_is_an_error() -> None:
    async def spin() -> None:
        while True:  # noqa: ASYNC110 - it is the point
            await asyncio.sleep(0)

    with pytest.raises(StuckError, match="1000 callbacks"):
        simulate(spin(), 1, most=1000)


def test_there_are_no_threads() -> None:
    with pytest.raises(RuntimeError, match="no threads"):
        simulate(asyncio.to_thread(print), 1)


def test_what_is_left_is_cancelled() -> None:
    ended, left = [], set()

    async def leave() -> None:
        async def other() -> None:
            try:
                await asyncio.sleep(10)
            finally:
                ended.append(True)

        left.add(asyncio.create_task(other()))
        await asyncio.sleep(1)

    simulate(leave(), 1)
    assert ended == [True]
