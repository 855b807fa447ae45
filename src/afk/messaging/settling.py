"""What handlers came to, settled in few calls: who end in the same tick share one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any

from .core import Core
from .delivery import Delivery, describe
from .errors import LeaseLostError, MessagingError, StoreError, UsageError
from .lifecycle import Done, RetryPolicy
from .log import log
from .store import Turn

TOGETHER = 32
"""Turns of one call, at most: a store is at work on some while others come."""

STORE_BACKOFF = RetryPolicy(base=0.1, cap=5.0)

Group = dict[Delivery[Any], Turn]
"""Deliveries whose handlers have ended, and what settles each. Who is settled leaves it."""


class Settling:
    """Settles the deliveries of one mailbox.

    waiting: how many are to be settled, and are not yet; left: called when some are on their way to
    the store, so that what is claimed next comes behind them, and when they have become fewer.
    tasks: those that settle some.
    """

    def __init__(self, core: Core, mailbox: str, left: Callable[[], None]) -> None:
        self._core = core
        self._mailbox = mailbox
        self._left = left
        self._context = copy_context()
        self._joining: Group = {}
        self.waiting = 0
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def joining(self) -> int:
        """How many wait for others, and are not on their way yet."""
        return len(self._joining)

    async def settle(self, delivery: Delivery[Any], turn: Turn, *, others: bool) -> None:
        """Settle it, whatever fails meanwhile; cancelled, it is given back. If others may end in
        this tick, it is left to a task that settles them all: what happens to the task of one
        handler is no matter of the others."""
        self.waiting += 1
        group = self._joining
        if not (others or group):
            group = {delivery: turn}
            try:
                await self._settle(group)
            finally:
                self._give_back(group)
            return
        group[delivery] = turn
        if len(group) == 1:
            self._start(group)
        if len(group) == TOGETHER:
            self._joining = {}

    def _start(self, group: Group, failures: int = 0) -> None:
        loop = asyncio.get_running_loop()
        # Not in the context of the handler that happens to be the first of them.
        task = self._context.run(loop.create_task, self._joined(group, failures))
        self.tasks.add(task)
        task.add_done_callback(partial(self._ended, group))

    async def _joined(self, group: Group, failures: int) -> None:
        await asyncio.sleep(0)
        if self._joining is group:
            self._joining = {}
        await self._settle(group, failures)

    def _ended(self, group: Group, task: asyncio.Task[None]) -> None:
        """Here, since one that is cancelled before its first step has no other chance."""
        self.tasks.discard(task)
        if self._joining is group:
            self._joining = {}
        self._give_back(group)

    def _give_back(self, group: Group) -> None:
        for delivery in list(group):
            delivery.give_back_later()
            self._over(group, delivery)
        self._left()

    async def _settle(self, group: Group, failures: int = 0) -> None:
        self._left()
        while group:
            failures = await self._try(group, failures)

    async def _try(self, group: Group, failures: int) -> int:
        """Once; how often the store has failed by now."""
        try:
            await self._put(group)
        except StoreError as error:
            failures += 1
            await back_off(failures, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is to wait for ever
            if len(group) == 1:
                self._refused(group, next(iter(group)), error)
        else:
            return 0
        if len(group) > 1:  # one of them may be to blame: each for itself
            for delivery, turn in group.items():
                self._start({delivery: turn}, failures)
            group.clear()
        return failures

    async def _put(self, group: Group) -> None:
        verdicts = await self._core.settle(tuple(group.values()))
        refused = []
        for delivery, verdict in zip(list(group), verdicts, strict=True):
            if verdict.refusal is None:
                delivery.was_settled()
                self._over(group, delivery)
            else:
                refused.append((delivery, verdict))
        self._left()
        for delivery, verdict in refused:
            try:
                await self._core.insist(verdict)
            except MessagingError as error:
                self._refused(group, delivery, error)

    def _refused(self, group: Group, delivery: Delivery[Any], error: Exception) -> None:
        """What it sent cannot be stored: then the turn failed like an exception. If not even that
        can be said, it is over; it was another's, or the bus is closed, or it is given back."""
        outcome = group[delivery].outcome
        over = isinstance(error, (LeaseLostError, UsageError))
        if not over and (outcome is None or isinstance(outcome, Done)):
            group[delivery] = delivery.turn(delivery.failure(describe(error)))
            return
        said = "%s: a message was not settled: %s"
        log.warning(said, self._mailbox, error, extra=delivery.ids)
        if not over:
            delivery.give_back_later()
        self._over(group, delivery)
        self._left()

    def _over(self, group: Group, delivery: Delivery[Any]) -> None:
        del group[delivery]
        self.waiting -= 1


async def back_off(failures: int, error: StoreError) -> None:
    """Wait until a store that has failed so often in a row is worth another try."""
    delay = STORE_BACKOFF.delay(failures, random.random())
    log.warning("the store failed, trying again in %.1f s: %s", delay, error)
    await asyncio.sleep(delay)
