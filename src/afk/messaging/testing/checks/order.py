"""Promise 8: order, by priority, by acceptance, and strictly within a thread."""

from __future__ import annotations

import asyncio
from typing import Any

from ...delivery import Delivery
from ...errors import ConfigurationError
from ...lifecycle import RetryPolicy
from ...messages import AgentMessage
from ..clock import FakeClock
from ..expect import raises
from ..steps import AT_ONCE, PATIENCE, claimed, contents, serving
from ..subject import Subject


async def check_higher_priority_comes_first(subject: Subject) -> None:
    """Among messages not yet claimed: urgent, high, normal, low; within one priority as they
    were sent."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for n in range(3):
            await ada.send("bob", ["low", n], priority="low")
            await ada.send("bob", ["urgent", n], priority="urgent")
            await ada.send("bob", ["normal", n])
            await ada.send("bob", ["high", n], priority="high")
        expected = [[p, n] for p in ("urgent", "high", "normal", "low") for n in range(3)]
        assert [message.content for message in await bob.peek()] == expected
        assert await contents(bob) == expected


async def check_one_sender_is_read_in_order(subject: Subject) -> None:
    """If a send returned before another of the same sender began, it is delivered first, also
    beside other senders and through several buses."""
    async with subject.bus() as one, subject.bus() as two:
        bob = await one.register("bob")

        async def talk(name: str) -> None:
            bus = one if name in ("a", "b") else two
            mailbox = await bus.register(name)
            for n in range(40):
                await mailbox.send("bob", n)
                await asyncio.sleep(0)

        await asyncio.gather(*map(talk, "abcd"))
        heard: dict[str, list[Any]] = {name: [] for name in "abcd"}
        while (message := await bob.receive(timeout=0)) is not None:
            heard[message.sender].append(message.content)
        assert heard == {name: list(range(40)) for name in "abcd"}


async def check_one_sender_may_change_its_bus(subject: Subject) -> None:
    """The order of one sender holds across the buses it sends from, one after the other."""
    async with subject.bus() as one, subject.bus() as two:
        bob = await one.register("bob")
        pens = [await one.register("ada"), await two.register("ada")]
        for n in range(60):
            await pens[n % 2].send("bob", n)
        assert await contents(bob) == list(range(60))


async def check_retried_messages_keep_their_priority(subject: Subject) -> None:
    """A message that comes again after a nack, a lease's end or a give-back is still before
    those of lower priority."""
    clock = FakeClock()
    async with subject.bus(clock, retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "low", priority="low")
        await bob.send("bob", "urgent", priority="urgent")
        await (await claimed(bob)).nack()
        assert (await claimed(bob, lease=5)).message.content == "urgent"
        await bob.send("bob", "normal")
        clock.advance(6)
        delivery = await claimed(bob)
        assert (delivery.message.content, delivery.attempt) == ("urgent", 3)
        await delivery.give_back()
        assert await contents(bob) == ["urgent", "normal", "low"]


async def check_a_delayed_message_waits_for_its_time(subject: Subject) -> None:
    """A message sent with a delay is scheduled until then, holds up nobody, and has its
    priority's place once it is due."""
    clock = FakeClock()
    async with subject.bus(clock) as bus:
        bob = await bus.register("bob")
        late = await bob.send("bob", "late", delay=10, priority="high")
        await bob.send("bob", "first")
        await bob.send("bob", "second")
        assert await late.status() == "scheduled"
        assert (await claimed(bob)).message.content == "first"
        clock.advance(9)
        assert await late.status() == "scheduled"
        clock.advance(2)
        assert await late.status() == "pending"
        assert await contents(bob) == ["late", "second"]


async def check_each_delayed_message_comes_at_its_time(subject: Subject) -> None:
    """In whatever order they were sent, and whatever else is leased or expires later."""
    clock = FakeClock()
    async with subject.bus(clock) as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "held")
        held = await claimed(bob, lease=100)
        await bob.send("bob", "passing", ttl=15, delay=1000)
        for delay in (30, 10, 40, 20):
            await bob.send("bob", delay, delay=delay)
        for delay in (10, 20, 30, 40):
            clock.advance(9)
            assert await contents(bob) == []
            clock.advance(1)
            assert await contents(bob) == [delay]
        await held.ack()


# -- mailboxes registered with ordered=True ----------------------------------------------


async def check_a_thread_is_worked_on_one_at_a_time(subject: Subject) -> None:
    """In an ordered mailbox the messages of a thread are delivered one at a time, in the order
    they were sent whatever their priority; other threads and no thread do not wait for it."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob", ordered=True)
        await ada.send("bob", "a1", thread_id="a", priority="low")
        await ada.send("bob", "a2", thread_id="a", priority="urgent")
        await ada.send("bob", "b1", thread_id="b")
        await ada.send("bob", "x")
        await ada.send("bob", "y")
        held = [await claimed(bob) for _ in range(4)]
        assert [d.message.content for d in held] == ["b1", "x", "y", "a1"]
        await ada.send("bob", "b2", thread_id="b")  # behind what is in someone's hands, too
        assert await bob.claim(timeout=0) is None
        await held[3].ack()
        assert (await claimed(bob)).message.content == "a2"


async def check_a_thread_is_in_order_across_consumers(subject: Subject) -> None:
    """However many consumers, buses and failures: each thread's messages are finished in order,
    and never two of them at once."""
    busy: set[str] = set()
    finished: dict[str, list[Any]] = {"a": [], "b": [], "c": []}

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        thread, n = delivery.message.thread_id, delivery.message.content
        assert thread not in busy, f"two of thread {thread} at once"
        busy.add(thread)
        await asyncio.sleep(0.001 * (n % 3))
        busy.remove(thread)
        if delivery.attempt == 1 and n % 4 == 0:
            raise ValueError("once")
        finished[thread].append(n)

    async with subject.bus(retry=AT_ONCE) as one, subject.bus(retry=AT_ONCE) as two:
        first, second = await one.register("bob", ordered=True), await two.register("bob")
        receipts = [
            await first.send("bob", n, thread_id=thread, priority="high" if n % 2 else "low")
            for n in range(12)
            for thread in finished
        ]
        async with serving(first, handler, concurrency=4), serving(second, handler, concurrency=4):
            for receipt in receipts:
                assert await receipt.settled(PATIENCE) == "done"
    assert finished == {thread: list(range(12)) for thread in finished}


async def check_a_failing_head_blocks_only_its_thread(subject: Subject) -> None:
    """While the head of a thread waits for its retry, the thread's others wait with it and every
    other thread goes on; dead, it lets its thread go on."""
    clock = FakeClock()
    policy = RetryPolicy(max_attempts=2, base=50.0, jitter="none")
    async with subject.bus(clock, retry=policy) as bus:
        bob = await bus.register("bob", ordered=True)
        for content in ("a1", "a2", "b1", "b2"):
            await bob.send("bob", content, thread_id=content[0])
        await (await claimed(bob)).nack("a1 fails")
        for content in ("b1", "b2"):
            delivery = await claimed(bob)
            assert delivery.message.content == content
            await delivery.ack()
        assert await bob.claim(timeout=0) is None
        assert [message.content for message in await bob.peek()] == ["a2"]
        assert await bob.message_count() == 1
        clock.advance(101)
        again = await claimed(bob)
        assert (again.message.content, again.attempt) == ("a1", 2)
        await again.nack("for good")
        assert await contents(bob) == ["a2"]


async def check_a_lost_lease_keeps_its_thread_in_order(subject: Subject) -> None:
    """When the lease of a thread's head ends, the head comes again before the thread's next."""
    clock = FakeClock()
    async with subject.bus(clock, retry=AT_ONCE) as bus:
        bob = await bus.register("bob", ordered=True)
        for n in range(3):
            await bob.send("bob", n, thread_id="t")
        await claimed(bob, lease=10)
        assert await bob.claim(timeout=0) is None
        clock.advance(11)
        delivery = await claimed(bob)
        assert (delivery.message.content, delivery.attempt) == (0, 2)
        await delivery.give_back()
        assert await contents(bob) == [0, 1, 2]


async def check_however_a_head_ends_its_thread_goes_on(subject: Subject) -> None:
    """Done, rejected, expired or cancelled: whatever ends the head of a thread, the next one is
    ready; and one that ends behind the head is simply not there."""
    clock = FakeClock()
    async with subject.bus(clock) as bus:
        bob = await bus.register("bob", ordered=True)
        sent = {
            content: await bob.send("bob", content, thread_id="t", ttl=ttl)
            for content, ttl in (
                ("done", None), ("rejected", None), ("expired", 10), ("cancelled", None),
                ("behind", None), ("expired behind", 10), ("last", None),
            )
        }  # fmt: skip
        await (await claimed(bob)).ack()
        await (await claimed(bob)).reject("bad")
        assert await bus.cancel(sent["behind"].id) == 1
        clock.advance(11)
        assert [m.content for m in await bob.peek()] == ["cancelled", "last"]
        assert await bus.cancel(sent["cancelled"].id) == 1
        assert await contents(bob) == ["last"]


async def check_a_redriven_message_goes_last_of_its_thread(subject: Subject) -> None:
    """A redriven message waits behind the open messages of its thread, and is worked on in its
    turn like them."""
    async with subject.bus() as bus:
        bob = await bus.register("bob", ordered=True)
        for n in range(3):
            await bob.send("bob", n, thread_id="t")
        first = await claimed(bob, PATIENCE)
        await first.reject("bad")
        assert await bus.redrive(first.message.id) == 1
        second = await claimed(bob, PATIENCE)
        assert await bob.claim(timeout=0) is None
        await second.ack()
        assert await contents(bob) == [2, 0]


async def check_a_blocked_thread_does_not_hide_others(subject: Subject) -> None:
    """However long a blocked thread is, the messages behind it are found."""
    async with subject.bus() as bus:
        bob = await bus.register("bob", ordered=True)
        for n in range(300):
            await bob.send("bob", n, thread_id="long", priority="urgent")
        await bob.send("bob", "other", thread_id="short", priority="low")
        head = await claimed(bob, PATIENCE)
        assert (await claimed(bob)).message.content == "other"
        assert await bob.claim(timeout=0) is None
        await head.ack()
        assert (await claimed(bob)).message.content == 1


async def check_ordered_is_the_mailboxs_own(subject: Subject) -> None:
    """`ordered` is set by who creates the mailbox: registering it again keeps it, and asking for
    order of one created without it is an error; elsewhere threads change nothing."""
    async with subject.bus() as bus:
        await bus.register("bob", ordered=True)
        bob = await bus.register("bob")
        plain = await bus.register("plain")
        with raises(ConfigurationError, "plain"):
            await bus.register("plain", ordered=True)
        for n in range(2):
            await bob.send("bob", n, thread_id="t")
            await bob.send("plain", n, thread_id="t")
        assert (await claimed(bob)).message.content == 0
        assert await bob.claim(timeout=0) is None
        assert [(await claimed(plain)).message.content for _ in range(2)] == [0, 1]
