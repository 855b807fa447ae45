"""A timer that makes allowance for an event loop that was blocked."""

from __future__ import annotations

import asyncio

import pytest

from afk.messaging.overdue import SPARE, Watch, by
from afk.messaging.testing.simulation import SimulatedLoop, simulate


def loop() -> SimulatedLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, SimulatedLoop)
    return running


async def looked(end: float, blocks: dict[float, float]) -> tuple[float, float]:
    """When a watch for `end` looks, and what it takes for overdue then. Times in seconds from now;
    blocks: the loop is blocked at a time for so long."""
    seen = []
    began = loop().time()
    watch = Watch(loop(), lambda over: seen.append((loop().time() - began, over - began)))
    watch.until(began + end)
    for at, seconds in blocks.items():
        loop().call_at(began + at, loop().block, seconds)
    await asyncio.sleep(60)
    [once] = seen
    return once


@pytest.mark.parametrize(
    ("end", "blocks", "expected"),
    [
        pytest.param(5, {}, (5 + SPARE, 5), id="never blocked"),
        pytest.param(-0.5, {}, (SPARE - 0.5, -0.5), id="over before it began"),
        pytest.param(-5, {}, (SPARE, 0), id="over long before it began"),
        pytest.param(5, {2: 1}, (5 + SPARE, 5), id="blocked before the end"),
        pytest.param(5, {4: 10}, (14 + SPARE, 14), id="blocked over the end"),
        pytest.param(5, {5.3: 10}, (5 + SPARE + 9.85, 5), id="blocked in the spare time"),
    ],
)
def test_the_spare_time_is_that_of_a_loop_that_runs(
    end: float, blocks: dict[float, float], expected: tuple[float, float]
) -> None:
    assert simulate(looked(end, blocks), seed=1) == pytest.approx(expected, abs=0.1)


async def answered(after: float, blocked: float) -> str:
    """What `by` makes of an answer after so many seconds, where 1 s is allowed."""

    async def ask() -> str:
        await asyncio.sleep(after)
        for _ in range(3):
            await asyncio.sleep(0)
        return "answer"

    asking = asyncio.create_task(by(loop().time() + 1, ask()))
    await asyncio.sleep(0)
    loop().block(blocked)
    try:
        return await asking
    except TimeoutError:
        return "late"


@pytest.mark.parametrize(
    ("after", "blocked", "outcome"),
    [
        (0.5, 0, "answer"),
        (1 + SPARE / 2, 0, "answer"),
        (1 + SPARE + 0.1, 0, "late"),
        (0.5, 100, "answer"),
    ],
)
def test_who_was_not_heard_in_time_is_not_late(after: float, blocked: float, outcome: str) -> None:
    assert simulate(answered(after, blocked), seed=1) == outcome
