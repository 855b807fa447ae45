"""Does the same to a bus and to the model, and compares."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from afk.messaging import (
    AgentMailbox,
    AgentMessage,
    Delivery,
    LeaseLostError,
    MailboxStats,
    MessageBus,
    UnknownAgentError,
)
from afk.messaging.messages import PRIORITIES
from afk.messaging.testing import FakeClock
from afk.messaging.trace import Entry

from .lifecycle import BOXES, POLICY, REACHABLE, Mail, Model
from .places import Make

T = TypeVar("T")


@dataclass
class Held:
    """A delivery, and which lease of its message it is."""

    delivery: Delivery[AgentMessage]
    mail: Mail
    fence: int
    attempt: int


class Machine(RuleBasedStateMachine):
    """Does the same to a bus and to the model, and compares."""

    sent = Bundle("sent")
    held = Bundle("held")
    boxes = st.sampled_from(sorted(BOXES))

    def __init__(self, make: Make) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        store = make(self.clock)
        self.bus = MessageBus(store, retry=POLICY, history=1e9, retention=1e9)
        self.model = Model(self.clock.now)
        self.seen: dict[str, str | None] = {}
        self.box: dict[str, AgentMailbox] = {}
        for name in BOXES:
            self.join(name)

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(call)

    def join(self, name: str) -> None:
        self.box[name] = self.run(self.bus.register(name, ordered=BOXES[name]))

    def teardown(self) -> None:
        self.run(self.bus.aclose())
        self.loop.close()

    # -- sending and claiming --

    @rule(
        target=sent,
        name=boxes,
        priority=st.sampled_from(PRIORITIES),
        thread=st.sampled_from(["", "t", "u"]),
        delay=st.sampled_from([0.0, 0.0, 5.0]),
        ttl=st.sampled_from([None, None, 7.0, 20.0]),
    )
    def send(self, name: str, priority: Any, thread: str, delay: float, ttl: float | None) -> Any:
        call = self.box[name].send(
            name, "x", priority=priority, thread_id=thread, delay=delay, ttl=ttl
        )
        if name not in self.model.registered:
            with pytest.raises(UnknownAgentError):
                self.run(call)
            return multiple()
        rank = PRIORITIES.index(priority)
        return self._accepted(self.run(call).id, name, rank, thread, delay, ttl)

    def _accepted(
        self, id_: str, name: str, rank: int, thread: str, delay: float, ttl: float | None
    ) -> Mail:
        model = self.model
        mail = Mail(
            id_,
            name,
            rank,
            model.next_place(),
            thread,
            due=model.now + delay,
            ttl=ttl,
            expires=None if ttl is None else model.now + ttl,
        )
        model.mail[id_] = mail
        model.settle_time()
        return mail

    @rule(target=held, name=boxes, lease=st.sampled_from([3.0, 12.0]))
    def claim(self, name: str, lease: float) -> Any:
        call = self.box[name].claim(timeout=0, lease=lease)
        if name not in self.model.registered:
            with pytest.raises(UnknownAgentError):
                self.run(call)
            return multiple()
        delivery = self.run(call)
        ready = self.model.ready(name)
        if delivery is None:
            assert not ready, "something ready was not delivered"
            return multiple()
        mail = self.model.mail[delivery.message.id]
        assert mail in ready
        assert mail.rank == min(m.rank for m in ready)
        fresh = [m.place for m in ready if m.rank == mail.rank and not m.attempt]
        assert mail.attempt or mail.place == min(fresh)
        mail.state, mail.lease_end = "leased", self.model.now + lease
        mail.attempt += 1
        mail.fence += 1
        assert delivery.attempt == mail.attempt
        return Held(delivery, mail, mail.fence, mail.attempt)

    # -- settling --

    def _settle(self, held: Held, call: Coroutine[Any, Any, None]) -> bool:
        """Settle; whether it was still ours to settle, as the model says."""
        if not self.model.held(held.mail, held.fence):
            with pytest.raises(LeaseLostError):
                self.run(call)
            return False
        self.run(call)
        return True

    def _failed(self, held: Held, due: float) -> None:
        held.mail.settled_fence = held.fence
        held.mail.fail(due, held.mail.box in self.model.registered)
        self.model.settle_time()

    @rule(held=held)
    def ack(self, held: Held) -> None:
        if self._settle(held, held.delivery.ack()):
            held.mail.state, held.mail.settled_fence = "done", held.fence

    @rule(held=consumes(held), onward=boxes)
    def ack_with_a_send(self, held: Held, onward: str) -> None:
        if held.delivery.settled:
            with pytest.raises(LeaseLostError):
                self.run(held.delivery.send(onward, "y"))
            return
        message = self.run(held.delivery.send(onward, "y"))
        mine = self.model.held(held.mail, held.fence)
        if mine and onward not in self.model.registered:
            with pytest.raises(UnknownAgentError):
                self.run(held.delivery.ack())
        elif self._settle(held, held.delivery.ack()):
            held.mail.state, held.mail.settled_fence = "done", held.fence
            self._accepted(message.id, onward, 2, "", 0.0, None)

    @rule(held=held, delay=st.sampled_from([None, 0.0, 3.0]))
    def nack(self, held: Held, delay: float | None) -> None:
        if self._settle(held, held.delivery.nack("failed", delay=delay)):
            pause = POLICY.delay(held.attempt, 0) if delay is None else delay
            if held.attempt >= POLICY.max_attempts:
                held.mail.settled_fence = held.fence
                held.mail.die("exhausted")
            else:
                self._failed(held, self.model.now + pause)

    @rule(held=held)
    def reject(self, held: Held) -> None:
        if self._settle(held, held.delivery.reject("bad")):
            held.mail.settled_fence = held.fence
            held.mail.die("rejected")

    @rule(held=held, delay=st.sampled_from([0.0, 4.0]))
    def give_back(self, held: Held, delay: float) -> None:
        call = held.delivery.retry(delay, counts=False) if delay else held.delivery.give_back()
        if self._settle(held, call):
            held.mail.attempt -= 1
            self._failed(held, self.model.now + delay)

    @rule(held=held)
    def extend(self, held: Held) -> None:
        if self._settle(held, held.delivery.extend(10)):
            held.mail.state, held.mail.lease_end = "leased", self.model.now + 10

    # -- time, and mending --

    @rule(seconds=st.sampled_from([1.0, 2.0, 4.0, 11.0, 30.0]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.model.now += seconds
        self.model.settle_time()

    @rule(mail=sent)
    def cancel(self, mail: Mail) -> None:
        waits = mail.state in ("pending", "scheduled")
        assert self.run(self.bus.cancel(mail.id)) == waits
        mail.state = "cancelled" if waits else mail.state

    @rule(mail=sent)
    def redrive(self, mail: Mail) -> None:
        self._redriven([mail], self.run(self.bus.redrive(mail.id)))

    @rule(name=boxes)
    def redrive_all(self, name: str) -> None:
        order = [letter.id for letter in self.run(self.bus.dead_letters(name))]
        found = [self.model.mail[i] for i in order]
        self._redriven(found, self.run(self.bus.redrive(agent=name)))

    def _redriven(self, found: list[Mail], count: int) -> None:
        dead = [m for m in found if m.state == "dead" and m.box in self.model.registered]
        assert count == len(dead)
        for mail in dead:
            mail.state, mail.reason, mail.attempt = "pending", None, 0
            mail.fence += 1  # whoever held it once cannot settle it any more
            mail.place = self.model.next_place()
            mail.expires = None if mail.ttl is None else self.model.now + mail.ttl

    @rule(mail=sent)
    def discard(self, mail: Mail) -> None:
        dead = mail.state == "dead"
        assert self.run(self.bus.discard(mail.id)) == dead
        mail.state = "gone" if dead else mail.state

    @rule(name=boxes)
    def leave_or_join(self, name: str) -> None:
        if name not in self.model.registered:
            self.model.registered.add(name)
            self.join(name)
            return
        self.run(self.bus.unregister(name))
        self.model.registered.remove(name)
        for mail in self.model.mail.values():
            if mail.box == name and mail.state in ("pending", "scheduled"):
                mail.die("unregistered")

    # -- what must always hold --

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
        assert not shown

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
        if BOXES[name]:  # by rank among the oldest of each thread, whatever the ranks behind
            left = sorted(pending, key=lambda m: m.place)
            for mail in shown:
                heads = {m.thread or m.id: m for m in reversed(left)}.values()
                assert (mail.rank, mail.place) == min((m.rank, m.place) for m in heads)
                left.remove(mail)
        else:
            assert [m.rank for m in shown] == sorted(m.rank for m in pending)
            fresh = [(m.rank, m.place) for m in shown if not m.attempt]
            assert fresh == sorted(fresh)
