"""What handlers came to, settled in few calls: who end in the same tick share one."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from .core import Core
from .delivery import Delivery, describe
from .errors import LeaseLostError, MessagingError, StoreError, UsageError
from .lifecycle import RetryPolicy
from .log import log
from .store import Turn

TOGETHER = 32
"""Turns of one call, at most: a store is at work on some while others come."""

STORE_BACKOFF = RetryPolicy(base=0.1, cap=5.0)

Ended = tuple[Delivery[Any], Turn]
"""A delivery whose handler has ended, and what settles it."""


class Settling:
    """Settles the deliveries of one mailbox.

    waiting: how many are to be settled, and are not yet.
    """

    def __init__(self, core: Core, mailbox: str) -> None:
        self._core = core
        self._mailbox = mailbox
        self._group: list[Ended] = []
        self.waiting = 0

    async def settle(self, delivery: Delivery[Any], turn: Turn, *, others: bool) -> None:
        """Settle it, whatever fails meanwhile, or leave that to who has come first in this tick.
        others: whether some might still come."""
        self.waiting += 1
        group = self._group
        group.append((delivery, turn))
        if len(group) > 1:
            if len(group) == TOGETHER:
                self._group = []
            return
        try:
            if others:
                await asyncio.sleep(0)
            if self._group is group:
                self._group = []
            await self._put(group)
        except asyncio.CancelledError:
            if self._group is group:
                self._group = []
            for each, _ in group:
                each.give_back_later()
            raise
        finally:
            self.waiting -= len(group)

    async def _put(self, group: list[Ended]) -> None:
        failures = 0
        while group:
            try:
                group = await self._try_put(group)
            except UsageError as error:  # the bus is closed
                for delivery, _ in group:
                    self._not_settled(delivery, error)
                return
            except StoreError as error:
                failures += 1
                await back_off(failures, error)
                if len(group) > 1:  # one of them may be to blame
                    await asyncio.gather(*[self._put([each]) for each in group])
                    return

    async def _try_put(self, group: list[Ended]) -> list[Ended]:
        """What is to be settled otherwise, as it was refused."""
        verdicts = await self._core.settle(tuple([turn for _, turn in group]))
        refused: list[Ended] = []
        for (delivery, _), verdict in zip(group, verdicts, strict=True):
            try:
                await self._core.insist(verdict)
            except LeaseLostError as error:  # another's by now
                self._not_settled(delivery, error)
            except MessagingError as error:
                # What it sent cannot be stored: the turn failed like an exception.
                refused.append((delivery, delivery.turn(delivery.failure(describe(error)))))
            else:
                delivery.was_settled()
        return refused

    def _not_settled(self, delivery: Delivery[Any], error: MessagingError) -> None:
        said = "%s: a message was not settled: %s"
        log.warning(said, self._mailbox, error, extra=delivery.ids)


async def back_off(failures: int, error: StoreError) -> None:
    """Wait until the store is worth another try."""
    delay = STORE_BACKOFF.delay(failures, random.random())
    log.warning("the store failed, trying again in %.1f s: %s", delay, error)
    await asyncio.sleep(delay)
