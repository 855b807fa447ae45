"""A timer that makes allowance for an event loop that was blocked."""

from __future__ import annotations

import asyncio

import pytest

from afk.messaging.overdue import SPARE, Watch, by, within
from afk.messaging.testing.simulation import SimulatedLoop, simulate


def loop() -> SimulatedLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, SimulatedLoop)
    return running


async def looked(ends: list[float], blocks: dict[float, float]) -> list[float]:
    """When each of these ends was found overdue by one watch. Times in seconds from now; blocks:
    the loop is blocked at a time for so long."""
    began = loop().time()
    found: list[float] = []

    def look() -> None:
        while len(found) < len(ends):
            end = began + ends[len(found)]
            if not watch.overdue(end):
                watch.until(end)
                return
            found.append(loop().time() - began)

    watch = Watch(loop(), look)
    watch.until(began + ends[0])
    for at, seconds in blocks.items():
        loop().call_at(began + at, loop().block, seconds)
    await asyncio.sleep(60)
    return found


@pytest.mark.parametrize(
    ("ends", "blocks", "expected"),
    [
        pytest.param([5], {}, [5 + SPARE], id="never blocked"),
        pytest.param([-0.5], {}, [SPARE - 0.5], id="over before it began"),
        pytest.param([-5], {}, [0], id="over long before it began"),
        pytest.param([5], {2: 1}, [5 + SPARE], id="blocked before the end"),
        pytest.param([5], {4: 10}, [14 + SPARE], id="blocked over the end"),
        pytest.param([5], {5.39: 10}, [15 + SPARE], id="blocked in the spare time"),
        pytest.param([5], {4: 10, 14.19: 10}, [24 + SPARE], id="blocked twice"),
        pytest.param([5, 5.5, 9], {}, [5 + SPARE, 5.5 + SPARE, 9 + SPARE], id="several"),
        pytest.param([5, 5, 5], {5.2: 10}, [15 + SPARE] * 3, id="several at once"),
        pytest.param(
            [5, 5.2, 5.5, 12, 20],
            {5.4: 10},
            [15 + SPARE, 15.2 + SPARE, 15.4 + SPARE, 15.4 + SPARE, 20 + SPARE],
            id="several of which some end before a block, some in it and one after it",
        ),
    ],
)
def test_the_spare_time_is_that_of_a_loop_that_runs(
    ends: list[float], blocks: dict[float, float], expected: list[float]
) -> None:
    assert simulate(looked(ends, blocks), seed=1) == pytest.approx(expected, abs=0.06)


async def judged_twice() -> list[bool]:
    """What a look says of an end that comes while it looks, before and after."""
    end = loop().time() + 0.06
    said: list[bool] = []

    def look() -> None:
        said.append(watch.overdue(end))
        loop().block(1)
        said.append(watch.overdue(end))

    watch = Watch(loop(), look)
    watch.until(loop().time())
    await asyncio.sleep(5)
    return said


def test_a_look_says_one_thing_of_each() -> None:
    assert simulate(judged_twice(), seed=1) == [False, False]


async def answered(after: float, blocked: float) -> str:
    """What `by` makes of an answer after so many seconds, where 1 s is allowed."""

    async def ask() -> str:
        await asyncio.sleep(after)
        for _ in range(3):
            await asyncio.sleep(0)
        return "answer"

    asking = asyncio.create_task(by(within(1), ask()))
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


async def waited(steps: list[float], blocks: dict[float, float]) -> float:
    """When a caller gives up who waits for a second and asks several times, each answered after
    so many seconds."""
    began = loop().time()
    for at, seconds in blocks.items():
        loop().call_at(began + at, loop().block, seconds)
    deadline = within(1)
    try:
        for seconds in steps:
            await by(deadline, asyncio.sleep(seconds))
    except TimeoutError:
        return loop().time() - began
    raise AssertionError


@pytest.mark.parametrize(
    ("steps", "blocks", "until"),
    [
        ([0.5, 0.6, 0.6, 0.6], {}, 1 + SPARE),
        ([0.5, 0.6, 9], {0.9: 10}, 10.9 + SPARE),
        ([0.5, 1.2, 9], {1.6: 10}, 11 + SPARE),
        ([0.5, 1.2, 30], {1.59: 10, 11.78: 10}, 21 + SPARE),
    ],
)
def test_the_spare_time_is_there_once_however_often_is_asked(
    steps: list[float], blocks: dict[float, float], until: float
) -> None:
    assert simulate(waited(steps, blocks), seed=1) == pytest.approx(until, abs=0.05)
