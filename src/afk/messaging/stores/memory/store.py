"""The memory store: a ledger, a clock, and bells for those who wait in this event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Literal, TypeVar

from ...hints import Bells
from ...store import (
    Batch,
    Bell,
    Box,
    Capabilities,
    Claim,
    MailboxStats,
    Query,
    Roster,
    Row,
    Turn,
    Verdict,
)
from ..ledger import Ledger

T = TypeVar("T")


class InMemoryA2ADeliveryStore:
    """Deliveries in this process's memory, for one event loop, gone with it.

    No verb awaits anything, so each is one critical section. A held lease needs no renewing:
    this process keeps it or is gone with it, so it is one long lease.
    clock: seconds since the epoch, for tests.
    """

    poll = 60.0
    capabilities = Capabilities(durability="memory", renews_when_blocked=True, instant=True)

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._ledger = Ledger()
        self._bells = Bells()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Stop the alarm, unless another bus over this store waits. The messages stay with it."""
        if self._alarm is not None and not self._bells:
            self._alarm.cancel()
            self._alarm = None

    async def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
        """Each turn in order, all or nothing."""
        now = self._clock()
        return self._told(tuple([self._ledger.take(turn, now) for turn in turns]))

    async def claim(self, claim: Claim) -> Batch:
        """Let time pass, then lease the first ready messages."""
        return self._told(self._ledger.claim(claim, self._clock()))

    async def bind(self, box: Box) -> Box:
        """Create the mailbox, or return it as it was created."""
        return self._ledger.bind(box)

    async def unbind(self, name: str) -> tuple[str, ...]:
        """Refuse new mail, then bury what waits."""
        return self._told(self._ledger.unbind(name, self._clock()))

    async def agents(self) -> Roster:
        """The directory now."""
        return self._ledger.roster()

    async def counts(self, mailbox: str | None = None) -> dict[str, MailboxStats]:
        """The counts of every registered mailbox, or of this one."""
        return self._ledger.counts(mailbox, self._clock())

    async def browse(self, query: Query) -> list[Row]:
        """Rows as they are."""
        return self._ledger.browse(query, self._clock())

    async def amend(
        self, verb: Literal["cancel", "redrive", "discard"], ids: tuple[str, ...], agent: str | None
    ) -> int:
        """Change these messages, or all dead ones of the agent."""
        return self._told(self._ledger.amend(verb, ids, agent, self._clock()))

    # -- waking those who wait -----------------------------------------------------------

    def listen(self, topic: str) -> Bell:
        """Hear of a topic."""
        bell = self._bells.listen(topic)
        self._arm()
        return bell

    def _told(self, answer: T) -> T:
        """Pass on the news that came with an answer."""
        news = self._ledger.news
        if self._bells:
            for topic in news:
                self._bells.ring(topic)
            self._arm()
        news.clear()
        return answer

    def _arm(self) -> None:
        """Have the alarm sound when time next brings something about."""
        if self._alarm is not None and self._alarm_at <= self._ledger.not_before:
            return
        at = self._ledger.next_due()
        if self._alarm is not None:
            if self._alarm_at <= at:
                return
            self._alarm.cancel()
            self._alarm = None
        if at != float("inf"):
            self._alarm_at = at
            wait = max(0.0, at - self._clock())
            self._alarm = asyncio.get_running_loop().call_later(wait, self._sound)

    def _sound(self) -> None:
        """Let time pass, tell those whom that concerns, and arm again; unless nobody waits."""
        self._alarm = None
        if self._bells:
            self._ledger.pass_time(self._clock())
            self._told(None)
