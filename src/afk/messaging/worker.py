"""serve: claim, handle, decide, settle; never more claimed than can start now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic

from msgspec import Struct

from .core import Core
from .delivery import Delivery, Reject, Retry, current, describe, failed
from .errors import StoreError
from .lifecycle import Dead, Outcome, RetryPolicy
from .log import log
from .settings import LEAST_SECONDS, check_number
from .settling import Settling, back_off
from .store import Leased, Turn
from .timeouts import Timeouts
from .views import M

QUICK = 2
"""Ticks of the event loop in which a handler may end, and what settles its message leave, before
more is claimed: of a hundred that end at once the next claim takes a hundred, and not what is left
beside them."""

Handler = Callable[[Delivery[M]], Awaitable[Any]]


class Work(Struct, frozen=True, kw_only=True):
    """How a worker is to serve. lease, timeout and grace in seconds."""

    concurrency: int
    lease: float
    timeout: float
    grace: float
    retry: RetryPolicy

    def __post_init__(self) -> None:
        check_number("concurrency", self.concurrency, 1)
        check_number("lease", self.lease, LEAST_SECONDS)
        check_number("timeout", self.timeout, LEAST_SECONDS)
        check_number("grace", self.grace, 0)


class Worker(Generic[M]):
    """Serves one mailbox with one handler until it is cancelled."""

    def __init__(
        self,
        core: Core,
        mailbox: str,
        opened: Callable[[Leased, float, RetryPolicy], Delivery[M] | None],
        handler: Handler[M],
        work: Work,
    ) -> None:
        self._core = core
        self._mailbox = mailbox
        self._opened = opened
        self._handler = handler
        self._work = work
        self._running: set[asyncio.Task[None]] = set()
        self._handling = 0
        self._free = asyncio.Event()
        self._timeouts = Timeouts(work.timeout)
        self._settling = Settling(core, mailbox, self._free.set)

    async def run(self) -> None:
        """Until cancelled; then let handlers finish for `grace` s and give back the rest."""
        failures = 0
        try:
            while True:
                if not (room := self._room()):
                    self._free.clear()
                    await self._free.wait()
                    continue
                try:
                    self._start(await self._claim(room))
                    failures = 0
                    for _ in range(QUICK):
                        await asyncio.sleep(0)
                except StoreError as error:
                    failures += 1
                    await back_off(failures, error)
        finally:
            try:
                await self._drain()
            finally:
                self._timeouts.close()

    def _room(self) -> int:
        """How many handlers can start now. A handler that has ended makes room once what settles
        its message is on its way, so that what is claimed next leaves together with that; not
        without end, if the store does not answer."""
        most, settling = self._work.concurrency, self._settling
        return min(most - settling.joining, 2 * most - settling.waiting) - self._handling

    async def _claim(self, limit: int) -> tuple[Leased, ...]:
        work = self._work
        return await self._core.claim(
            self._mailbox,
            limit=limit,
            lease=work.lease,
            # One lease beyond the time-out, in which the failure is settled.
            hold=work.timeout + work.lease,
            policy=work.retry,
        )

    def _start(self, batch: tuple[Leased, ...]) -> None:
        loop = asyncio.get_running_loop()
        for leased in batch:
            delivery = self._opened(leased, self._work.lease, self._work.retry)
            if delivery is not None:
                self._handling += 1
                task = loop.create_task(self._handle(delivery))
                if not task.done():  # an eager one may be
                    self._running.add(task)

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._work.grace
        try:
            while (tasks := self._tasks()) and (left := end - loop.time()) > 0:
                await asyncio.wait(tasks, timeout=left)
        finally:
            for task in self._tasks():
                task.cancel()
            while tasks := self._tasks():
                await asyncio.wait(tasks)

    def _tasks(self) -> set[asyncio.Task[None]]:
        """What handles and settles. One that was cancelled before its first step is over unseen."""
        return {task for task in self._running | self._settling.tasks if not task.done()}

    async def _handle(self, delivery: Delivery[M]) -> None:
        """One message from claim to settled; nothing a handler does ends the worker."""
        current.set(delivery)  # the task's own context
        task = asyncio.current_task()
        assert task is not None
        try:
            try:
                turn = await self._outcome(delivery, task)
            finally:
                self._handling -= 1
            if turn is not None:
                await self._settling.settle(delivery, turn, others=self._handling > 0)
        except asyncio.CancelledError:
            delivery.give_back_later()
            raise
        finally:
            self._running.discard(task)
            if not self._settling.joining:
                self._free.set()

    async def _outcome(self, delivery: Delivery[M], task: asyncio.Task[Any]) -> Turn | None:
        """Run the handler; what settles what it did, if anything does."""
        outcome: Outcome
        try:
            with self._timeouts.of(task):
                result = await self._handler(delivery)
            return delivery.concluded(result)
        except Retry as retry:
            outcome = delivery.again(retry.delay, counts=retry.counts)
        except Reject as reject:
            outcome = Dead("rejected", str(reject))
        except (Exception, asyncio.CancelledError) as failure:
            if not failed(failure):
                raise
            error = describe(failure) if str(failure) else self._unnamed(failure)
            of = (self._mailbox, delivery.attempt)
            log.warning("%s: attempt %d failed: %s", *of, error, extra=delivery.ids)
            log.info("%s: how it failed", self._mailbox, exc_info=True, extra=delivery.ids)
            outcome = delivery.failure(error)
        if delivery.settled:
            said = "%s: a message failed after its handler had settled it"
            log.warning(said, self._mailbox, extra=delivery.ids)
            return None
        return delivery.turn(outcome)

    def _unnamed(self, failure: BaseException) -> str:
        if isinstance(failure, TimeoutError):
            return f"TimeoutError: the handler took longer than {self._work.timeout} s"
        return type(failure).__name__
