"""Simulated time and chance: an event loop that repeats itself exactly.

    async def story():
        async with MessageBus(InMemoryA2ADeliveryStore(clock=simulated_time)) as bus:
            ...

    simulate(story(), seed=7)

Time stands still while something is ready to run, but for a microsecond a callback, and jumps to
the next timer when nothing is: an hour of sleep takes no time. Which of the ready callbacks runs
next is decided by the seed; only what one callback asked for keeps its order. So are the random
numbers of `random` and the ids of messages. The same seed gives the same run, to the last step.

There is no network and there are no threads in it: of the stores, only the memory store lives
there.
"""

from __future__ import annotations

import asyncio
import random
from asyncio import AbstractEventLoop, Handle, Task, TimerHandle
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from heapq import heappop
from typing import Any, NoReturn, TypeVar

from ..messages import new_id

T = TypeVar("T")

EPOCH = 1_700_000_000.0
"""Where simulated time begins, in seconds since the epoch."""

TICK = 1e-6
"""Seconds that a callback takes."""

_LATER = 1 << 42
"""Milliseconds, later than any now: ids go on from the last one when the clock is behind it."""


class StuckError(RuntimeError):
    """It does not end: nothing is ready and no timer is set, or too many callbacks have run."""


class SimulatedTask(Task[T]):
    """A task whose place in a set does not depend on its address."""

    def __init__(
        self, number: int, coro: Coroutine[Any, Any, T], loop: AbstractEventLoop, context: Context
    ) -> None:
        self.number = number
        self.context = context
        super().__init__(coro, loop=loop, context=context)

    def __hash__(self) -> int:
        return self.number


class SimulatedLoop(asyncio.BaseEventLoop):
    """The event loop. chance: a random number in [0, 1) for each choice; most: how many callbacks
    may run."""

    _scheduled: list[TimerHandle]  # of the base class; the timers, as a heap
    _stopping: bool
    _timer_cancelled_count: int

    def __init__(self, chance: Callable[[], float], most: int) -> None:
        super().__init__()
        self._chance = chance
        self._most = most
        self._now = 0.0
        self._lines: list[deque[Handle]] = []
        self._asked: deque[Handle] | None = None
        self._tasks = 0
        self.ticks = 0
        """How many callbacks have run."""
        self.lost = 0.0
        """Seconds for which it was blocked."""
        self.failures: list[dict[str, Any]] = []
        """What nobody caught, as an exception handler is told of it."""
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    # -- time ----------------------------------------------------------------------------

    def time(self) -> float:
        """Seconds since this loop was made."""
        return self._now

    def block(self, seconds: float) -> None:
        """A callback takes so long, and nothing else runs meanwhile; timers are late for it."""
        self._now += seconds
        self.lost += seconds

    # -- what it is asked to do ----------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """Behind whatever the running callback asked for before, and before or after the rest."""
        self._check_closed()  # type: ignore[attr-defined]
        handle = Handle(callback, args, self, context)
        if self._asked is None:
            self._asked = deque()
            self._lines.append(self._asked)
        self._asked.append(handle)
        return handle

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
        **_: Any,
    ) -> SimulatedTask[T]:
        """A task that keeps its number and its context."""
        self._check_closed()  # type: ignore[attr-defined]
        self._tasks += 1
        task = SimulatedTask(self._tasks, coro, self, context or copy_context())
        if name is not None:
            task.set_name(name)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> NoReturn:
        """Refused: what a thread does cannot be repeated."""
        raise RuntimeError("a simulation has no threads")

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """The same: there is one thread."""
        return self.call_soon(callback, *args, context=context)

    # -- running -------------------------------------------------------------------------

    def _run_once(self) -> None:
        """Until the loop is stopped, or nothing is ready; then let time pass."""
        lines, timers = self._lines, self._scheduled
        while lines and not self._stopping:
            choice = int(self._chance() * len(lines))
            line = lines[choice]
            handle = line.popleft()
            if not line:
                lines[choice] = lines[-1]
                lines.pop()
            self._asked = None
            if not handle.cancelled():
                self._now += TICK
                self.ticks += 1
                if self.ticks > self._most:
                    raise StuckError(f"{self._most} callbacks have run, and it has not ended")
                handle._run()
            if timers and timers[0].when() <= self._now:
                self._ring()
        if not self._stopping:
            self._jump()

    def go_on(self) -> None:
        """As many callbacks as before may run, counted from now."""
        self._most += self.ticks

    def _jump(self) -> None:
        self._asked = None
        timers = self._scheduled
        while timers and timers[0].cancelled():
            self._pop()
        if not timers:
            raise StuckError("nothing is ready, and no timer is set")
        self._now = max(self._now, timers[0].when())
        self._ring()

    def _ring(self) -> None:
        """Each timer that is due is ready, in no order with the others."""
        timers = self._scheduled
        while timers and timers[0].when() <= self._now:
            handle = self._pop()
            if not handle.cancelled():
                self._lines.append(deque((handle,)))

    def _pop(self) -> TimerHandle:
        handle = heappop(self._scheduled)
        handle._scheduled = False  # type: ignore[attr-defined]
        if handle.cancelled():
            self._timer_cancelled_count -= 1
        return handle

    def close(self) -> None:
        """Forget what was to run."""
        self._lines.clear()
        super().close()


def simulated_time() -> float:
    """Seconds since the epoch, in the running simulation: the `clock` of a memory store."""
    return EPOCH + asyncio.get_running_loop().time()


@contextmanager
def seeded(seed: int) -> Iterator[random.Random]:
    """Inside the block `random` and the ids of messages are made of the seed; it gives a random
    number generator of its own, made of it too."""
    state = random.getstate()
    random.seed(seed)
    new_id.start(_LATER, 1, f"{seed & 0xFF_FFFF_FFFF:010x}")
    try:
        yield random.Random(seed)
    finally:
        random.setstate(state)
        new_id._seed()


def simulate(main: Coroutine[Any, Any, T], seed: int, *, most: int = 10_000_000) -> T:
    """Run a coroutine in a simulation of its own, as `asyncio.run` does.

    most: how many callbacks may run before it is taken for one that never ends (StuckError).
    """
    with seeded(seed) as chance:
        loop = SimulatedLoop(chance.random, most)
        try:
            return loop.run_until_complete(main)
        finally:
            _end(loop)


def _end(loop: SimulatedLoop) -> None:
    """Cancel the tasks that are left, and let them end."""
    left = asyncio.all_tasks(loop)
    loop.go_on()
    for task in left:
        task.cancel()
    with suppress(StuckError):  # one that does not end when cancelled
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
