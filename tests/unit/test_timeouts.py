"""One timer for many tasks that all have the same time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from afk.messaging.testing.steps import PATIENCE
from afk.messaging.timeouts import Timeouts

SHORT = 0.02


def here() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def stays(timeouts: Timeouts, seconds: float = PATIENCE) -> str:
    with timeouts.of(here()):
        await asyncio.sleep(seconds)
    return "in time"


async def test_who_is_late_is_cancelled_and_told() -> None:
    timeouts = Timeouts(SHORT)
    with pytest.raises(TimeoutError):
        await stays(timeouts)
    assert here().cancelling() == 0
    assert await stays(timeouts, 0) == "in time"


async def test_each_has_its_own_time() -> None:
    timeouts = Timeouts(5 * SHORT)
    loop, ends = asyncio.get_running_loop(), []

    async def one(number: int) -> None:
        await asyncio.sleep(number * SHORT)
        begin = loop.time()
        with pytest.raises(TimeoutError):
            await stays(timeouts)
        ends.append((number, loop.time() - begin >= 5 * SHORT - 0.001))

    await asyncio.gather(*map(one, range(4)))
    assert ends == [(number, True) for number in range(4)]


async def test_another_ones_cancellation_is_no_time_out() -> None:
    timeouts = Timeouts(PATIENCE)
    task = asyncio.create_task(stays(timeouts))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_both_at_once_are_a_cancellation() -> None:
    timeouts = Timeouts(SHORT)

    async def late() -> None:
        with timeouts.of(here()):
            try:
                await asyncio.sleep(PATIENCE)
            finally:
                here().cancel()  # as someone else might in the same moment

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(late())


async def test_what_a_block_makes_of_its_cancellation_counts() -> None:
    async def stubborn() -> str:
        with Timeouts(SHORT).of(here()):
            try:
                await asyncio.sleep(PATIENCE)
            except asyncio.CancelledError:
                return "saved"
        return "not late"

    assert await stubborn() == "saved"
    assert here().cancelling() == 0


async def test_whoever_is_inside_when_it_is_closed_is_not_let_off() -> None:
    timeouts = Timeouts(SHORT)
    task = asyncio.create_task(stays(timeouts))
    await asyncio.sleep(0)
    timeouts.close()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(task, PATIENCE)


async def test_closed_it_leaves_no_timer() -> None:
    timeouts = Timeouts(PATIENCE)
    await stays(timeouts, 0)
    timeouts.close()
    waiting: Any = asyncio.get_running_loop()
    assert not [timer for timer in waiting._scheduled if not timer.cancelled()]


def test_a_block_may_be_closed_without_a_loop() -> None:
    loop = asyncio.new_event_loop()
    timeouts = Timeouts(PATIENCE)
    inside: list[Any] = []

    async def enter() -> None:
        inside.append(stays_with(timeouts, here()))
        inside[0].send(None)

    async def stays_with(timeouts: Timeouts, task: asyncio.Task[Any]) -> None:
        with timeouts.of(task):
            await asyncio.sleep(0)

    loop.run_until_complete(enter())
    inside[0].close()  # nothing else is raised
    timeouts.close()
    loop.close()
