"""Does the same to a bus and to the model, and compares."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis.stateful import invariant

from afk.messaging import AgentMessage, MailboxStats, RequestFailedError, RequestTimeoutError
from afk.messaging.trace import Entry

from .lifecycle import BOXES, REACHABLE, Mail
from .mending import Mending
from .places import Make
from .sending import Sending
from .settling import Settling

HEARD = 30.0
"""Seconds until who waits for an answer has it, on a loaded machine."""


class Machine(Sending, Settling, Mending):
    """Does the same to a bus and to the model, and compares."""

    def __init__(self, make: Make) -> None:
        super().__init__(make)
        self.seen: dict[str, str | None] = {}

    @invariant()
    def the_store_agrees_with_the_model(self) -> None:
        self.run(self._compare())

    async def _compare(self) -> None:
        self._expect_messages(await self.bus.messages(limit=10_000))
        self._expect_counts(await self.bus.stats())
        letters = await self.bus.dead_letters(limit=10_000)
        dead = {m.id: m.reason for m in self.model.mail.values() if m.state == "dead"}
        assert {letter.id: letter.reason for letter in letters} == dead
        for name in self.model.registered:
            self._expect_order(name, await self.box[name].peek(10_000))
        for id_, waiter in list(self.waiting.items()):
            await self._expect_answer(self.model.mail[id_], waiter)

    def _expect_messages(self, entries: list[Entry]) -> None:
        """Nothing is lost, nothing is invented, and each is in its state."""
        shown = {entry.id: entry for entry in entries}
        for mail in self.model.mail.values():
            entry = shown.pop(mail.id, None)
            if mail.state == "gone":
                assert entry is None or entry.state == "cancelled"
                continue
            assert entry is not None, f"lost: {mail}"
            assert (entry.state, entry.attempts) == (mail.state, mail.attempt), mail
            before = self.seen.get(mail.id)
            assert entry.state == before or entry.state in REACHABLE[before]
            self.seen[mail.id] = entry.state
        assert not shown, f"more than was sent: {shown}"

    def _expect_counts(self, stats: dict[str, MailboxStats]) -> None:
        assert set(stats) == self.model.registered
        for name, found in stats.items():
            states = [m.state for m in self.model.mail.values() if m.box == name]
            counted = (found.pending["all"], found.leased, found.scheduled, found.dead)
            assert counted == tuple(map(states.count, ("pending", "leased", "scheduled", "dead")))

    def _expect_order(self, name: str, messages: list[AgentMessage]) -> None:
        shown = [self.model.mail[message.id] for message in messages]
        pending = [m for m in self.model.mail.values() if m.box == name and m.state == "pending"]
        assert len(shown) == len(pending)
        if BOXES[name].ordered:  # by rank among the oldest of each thread
            left = sorted(pending, key=lambda m: m.place)
            for mail in shown:
                heads = {m.thread or m.id: m for m in reversed(left)}.values()
                assert (mail.rank, mail.place) == min((m.rank, m.place) for m in heads)
                left.remove(mail)
        else:
            assert [m.rank for m in shown] == sorted(m.rank for m in pending)
            fresh = [(m.rank, m.place) for m in shown if not m.attempt]
            assert fresh == sorted(fresh)

    async def _expect_answer(self, mail: Mail, waiter: asyncio.Task[AgentMessage]) -> None:
        """Who asked has the answer, or hears that there will be none, or waits."""
        if mail.answer is None and mail.state not in ("dead", "cancelled"):
            await asyncio.sleep(0)
            assert not waiter.done()
            return
        del self.waiting[mail.id]
        async with asyncio.timeout(HEARD):
            if mail.answer is not None:
                assert (await waiter).content == mail.answer
                return
            unanswered = RequestTimeoutError if mail.reason == "expired" else RequestFailedError
            with pytest.raises(unanswered):
                await waiter
