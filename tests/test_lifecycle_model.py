"""Any sequence of calls, on any store, ends where a small model of the lifecycle says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from afk.messaging import (
    A2ADeliveryStore,
    AgentMailbox,
    AgentMessage,
    Delivery,
    InMemoryA2ADeliveryStore,
    LeaseLostError,
    MailboxStats,
    MessageBus,
    RetryPolicy,
    SQLiteA2ADeliveryStore,
    UnknownAgentError,
)
from afk.messaging.lifecycle import FINAL, TRANSITIONS
from afk.messaging.messages import PRIORITIES
from afk.messaging.testing import FakeClock
from afk.messaging.trace import Entry

T = TypeVar("T")
Make = Callable[[Path, FakeClock], A2ADeliveryStore]

STORES: dict[str, tuple[Make, int]] = {
    "memory": (lambda folder, clock: InMemoryA2ADeliveryStore(clock=clock), 150),
    "sqlite": (
        lambda folder, clock: SQLiteA2ADeliveryStore(
            folder / "mail.db", durability="process", clock=clock
        ),
        25,
    ),
}
"""How to make each store, and how many sequences to try on it."""

POLICY = RetryPolicy(max_attempts=3, base=2.0, factor=2.0, jitter="none")
BOXES = {"plain": False, "tidy": True}
"""Mailboxes, and whether they are ordered."""

REACHABLE: dict[str | None, set[str]] = {}
"""The states that may follow each state, in one step or several."""
for _before in {state for state, _ in TRANSITIONS}:
    _found = {after for (state, _), after in TRANSITIONS.items() if state == _before}
    while _more := {a for (s, _), a in TRANSITIONS.items() if s in _found} - _found:
        _found |= _more
    REACHABLE[_before] = _found


# -- the model ---------------------------------------------------------------------------


@dataclass
class Mail:
    """One message, as it must be."""

    id: str
    box: str
    rank: int
    place: int
    thread: str
    due: float
    ttl: float | None
    expires: float | None
    state: str = "scheduled"
    attempt: int = 0
    fence: int = 0
    settled_fence: int = 0
    lease_end: float = 0.0
    reason: str | None = None

    def die(self, reason: str) -> None:
        self.state, self.reason = "dead", reason

    def fail(self, due: float, registered: bool) -> None:
        self.state, self.due = "scheduled", due
        if not registered:
            self.die("unregistered")


@dataclass
class Model:
    """All messages, and what each call makes of them."""

    now: float
    mail: dict[str, Mail] = field(default_factory=dict)
    registered: set[str] = field(default_factory=lambda: set(BOXES))
    accepted: int = 0

    def settle_time(self) -> None:
        for m in self.mail.values():
            if m.state == "leased" and m.lease_end <= self.now:
                if m.attempt >= POLICY.max_attempts:
                    m.die("exhausted")
                else:
                    m.state, m.due = "scheduled", m.lease_end + POLICY.delay(m.attempt, 0)
            if m.state == "scheduled" and m.due <= self.now:
                m.state = "pending"
                if m.box not in self.registered:  # it was leased when the name went
                    m.die("unregistered")
            waits = m.state in ("pending", "scheduled")
            if waits and m.expires is not None and m.expires <= self.now:
                m.die("expired")

    def next_place(self) -> int:
        self.accepted += 1
        return self.accepted

    def ready(self, box: str) -> list[Mail]:
        """What may be claimed: pending, and of an ordered thread only the oldest open one."""
        heads: dict[str, Mail] = {}
        for m in sorted(self.mail.values(), key=lambda m: m.place):
            if m.box == box and m.thread and BOXES[box] and m.state not in (*FINAL, "gone"):
                heads.setdefault(m.thread, m)
        return [
            m
            for m in self.mail.values()
            if m.box == box and m.state == "pending" and heads.get(m.thread, m) is m
        ]

    def held(self, m: Mail, fence: int) -> bool:
        """Whether the fence-th lease may still be settled."""
        return m.fence == fence != m.settled_fence and m.state not in (*FINAL, "gone")


@dataclass
class Held:
    """A delivery, and which lease of its message it is."""

    delivery: Delivery[AgentMessage]
    mail: Mail
    fence: int
    attempt: int


# -- the machine -------------------------------------------------------------------------


class Machine(RuleBasedStateMachine):
    """Does the same to a bus and to the model, and compares."""

    sent = Bundle("sent")
    held = Bundle("held")
    boxes = st.sampled_from(sorted(BOXES))

    def __init__(self, make: Make) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = TemporaryDirectory()
        self.clock = FakeClock()
        store = make(Path(self.folder.name), self.clock)
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
        self.folder.cleanup()

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


@pytest.mark.parametrize("store", STORES)
def test_any_sequence_of_calls_follows_the_model(store: str) -> None:
    make, examples = STORES[store]
    run_state_machine_as_test(
        lambda: Machine(make),
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_what_is_final_stays() -> None:
    assert REACHABLE.get("done", set()) == REACHABLE.get("cancelled", set()) == set()
    assert REACHABLE["dead"] == {*REACHABLE["pending"], "pending"}
