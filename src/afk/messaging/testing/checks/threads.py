"""Promises 7 and 8: a thread goes on, however many of it end, and whatever the clock does."""

from __future__ import annotations

import asyncio

from ...bus import MessageBus
from ...mailbox import AgentMailbox
from ..clock import FakeClock
from ..steps import claimed, contents
from ..subject import Subject

LONG = 600
"""So many that a call within a call for each of them would be too deep."""


async def _long_thread(bus: MessageBus, ttl: float | None = None) -> AgentMailbox:
    """A mailbox with a long thread in it, and another one beside it."""
    ada, bob = await bus.register("ada"), await bus.register("bob", ordered=True)
    await asyncio.gather(*(ada.send("bob", n, thread_id="t", ttl=ttl) for n in range(LONG)))
    return bob


async def _reasons(bus: MessageBus) -> list[str]:
    return [letter.reason for letter in await bus.dead_letters("bob", limit=2 * LONG)]


async def check_a_long_thread_may_expire(subject: Subject) -> None:
    """However many messages of one thread expire at the same time, each is a dead letter, and
    the other mailboxes go on."""
    clock = FakeClock()
    async with subject.bus(clock) as bus:
        bob = await _long_thread(bus, ttl=10)
        clock.advance(11)
        await bob.send("ada", "hello")
        assert await contents(await bus.register("ada")) == ["hello"]
        assert await _reasons(bus) == ["expired"] * LONG
        await bob.send("bob", "next", thread_id="t")
        assert await contents(bob) == ["next"]


async def check_a_long_thread_may_expire_behind_its_head(subject: Subject) -> None:
    """However many messages expired behind the one being worked on, its ack is an ack."""
    clock = FakeClock()
    async with subject.bus(clock) as bus:
        bob = await _long_thread(bus, ttl=10)
        head = await claimed(bob, lease=100)
        clock.advance(11)
        await head.ack()
        assert await contents(bob) == []
        assert await bus.status(head.message.id) == "done"
        assert await _reasons(bus) == ["expired"] * (LONG - 1)


async def check_a_long_thread_may_be_unregistered(subject: Subject) -> None:
    """However long a thread, `unregister` buries all of it."""
    async with subject.bus() as bus:
        await _long_thread(bus)
        await bus.unregister("bob")
        assert await bus.agents() == ["ada"]
        assert await _reasons(bus) == ["unregistered"] * LONG


async def check_what_ended_behind_its_head_can_be_redriven(subject: Subject) -> None:
    """A message that expired while it waited for its thread is delivered once it is redriven,
    and its thread goes on behind it."""
    clock = FakeClock()
    async with subject.bus(clock) as bus:
        bob = await bus.register("bob", ordered=True)
        await bob.send("bob", 1, thread_id="t")
        second = await bob.send("bob", 2, thread_id="t", ttl=10)
        clock.advance(11)
        assert await contents(bob) == [1]
        assert await second.status() == "dead"
        assert await bus.redrive(second.id) == 1
        await bob.send("bob", 3, thread_id="t")
        assert await contents(bob) == [2, 3]
        assert await bob.message_count() == 0


async def check_a_redriven_message_is_behind_all_that_wait(subject: Subject) -> None:
    """A message that ended in line, and is redriven, is last of all that wait, and there
    once."""
    clock = FakeClock()
    async with subject.bus(clock) as bus:
        bob = await bus.register("bob")
        first = await bob.send("bob", "first", ttl=10)
        await bob.send("bob", "second")
        await bob.send("bob", "third")
        clock.advance(11)
        assert (await bus.stats())["bob"].dead == 1
        assert [letter.id for letter in await bus.dead_letters("bob")] == [first.id]
        assert await bus.redrive(first.id) == 1
        order = ["second", "third", "first"]
        assert [message.content for message in await bob.peek()] == order
        assert [entry.id for entry in await bus.messages(agent="bob")][-1] == first.id
        assert await contents(bob) == order


async def check_a_clock_set_back_holds_up_no_thread(subject: Subject) -> None:
    """What was sent without a delay is delivered whatever the clock says later, also behind its
    thread's head."""
    clock = FakeClock()
    async with subject.bus(clock) as bus:
        bob = await bus.register("bob", ordered=True)
        await bob.send("bob", 1, thread_id="t")
        second = await bob.send("bob", 2, thread_id="t")
        clock.advance(-3600)
        await (await claimed(bob)).ack()
        assert await second.status() == "pending"
        assert await contents(bob) == [2]
