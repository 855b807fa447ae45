"""Promises 3, 5 and 9: what exactly one settle does, frees, answers and makes known."""

from __future__ import annotations

import asyncio
from typing import Any

from ...delivery import Delivery
from ...errors import LeaseLostError, MailboxFullError
from ...lifecycle import RetryPolicy
from ...messages import AgentMessage
from ..clock import FakeClock
from ..expect import raises
from ..steps import claimed, contents, serving, until
from ..subject import Subject


async def check_extend_takes_nothing_from_a_held_lease(subject: Subject) -> None:
    """`extend` while the lease is renewed anyway never ends it sooner."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        receipt = await bob.send("bob", "long work")
        async with await claimed(bob, lease=0.6) as delivery:
            await delivery.extend(0.02)
            for _ in range(10):
                await asyncio.sleep(0.1)
                assert await bob.claim(timeout=0) is None, "its lease ended while it was held"
        assert await receipt.status() == "done"


async def check_a_returned_reply_is_one_answer(subject: Subject) -> None:
    """`return await delivery.reply(...)` answers once: the same message twice is one message."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")

        async def answer(delivery: Delivery[AgentMessage]) -> Any:
            return await delivery.reply("hello")

        async with serving(bob, answer):
            assert (await ada.request("bob", "hi", timeout=5)).content == "hello"
            receipt = await ada.send("bob", "hi")
            assert await receipt.settled(timeout=5) == "done"
        assert await contents(ada) == ["hello"]


async def check_a_key_twice_in_a_turn_is_one_message(subject: Subject) -> None:
    """What a turn sends twice under one key is stored once."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", "go")
        delivery = await claimed(bob)
        for _ in range(2):
            await delivery.send("ada", "done", idempotency_key="k")
        await delivery.ack()
        assert await contents(ada) == ["done"]


async def check_of_two_answers_in_a_turn_the_first_counts(subject: Subject) -> None:
    """A second answer is ignored, also when both leave in the same turn."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")

        async def answer(delivery: Delivery[AgentMessage]) -> str:
            await delivery.reply("first")
            return "second"

        async with serving(bob, answer):
            assert (await ada.request("bob", "hi", timeout=5)).content == "first"
        assert await contents(ada) == []


async def check_an_ack_makes_room_for_its_own_turn(subject: Subject) -> None:
    """The place a message leaves with its ack is free for what the same turn sends, and no more."""
    async with subject.bus() as bus:
        bob = await bus.register("bob", capacity=1)
        await bob.send("bob", 0)
        for n in range(3):
            delivery = await claimed(bob)
            assert delivery.message.content == n
            await delivery.send("bob", n + 1)
            await delivery.ack()
        assert await bob.message_count() == 1


async def check_a_late_ack_is_whole_in_a_full_mailbox(subject: Subject) -> None:
    """A late ack whose turn first has to make room by letting time pass is not overtaken by that:
    the message is done, and no dead letter."""
    clock = FakeClock()
    async with subject.bus(clock, retry=RetryPolicy(max_attempts=1)) as bus:
        bob, eve = await bus.register("bob"), await bus.register("eve", capacity=1)
        receipt = await bob.send("bob", "work")
        await bob.send("eve", "old", ttl=5)
        delivery = await claimed(bob, lease=5)
        clock.advance(6)
        await delivery.send("eve", "new")
        await delivery.ack()
        assert await receipt.status() == "done"
        assert await bus.dead_letters("bob") == []
        assert await contents(eve) == ["new"]
        assert (await bus.stats())["bob"].dead == 0


async def check_a_refused_late_ack_leaves_time_its_way(subject: Subject) -> None:
    """A late ack whose turn finds no room changes nothing: the lease has ended all the same."""
    clock = FakeClock()
    async with subject.bus(clock, retry=RetryPolicy(max_attempts=1)) as bus:
        bob, eve = await bus.register("bob"), await bus.register("eve", capacity=1)
        receipt = await bob.send("bob", "work")
        await bob.send("eve", "fills it")
        delivery = await claimed(bob, lease=5)
        clock.advance(6)
        await delivery.send("eve", "no room")
        with raises(MailboxFullError):
            await delivery.ack()
        assert await bob.claim(timeout=0) is None
        assert await receipt.status() == "dead"
        assert [letter.reason for letter in await bus.dead_letters("bob")] == ["exhausted"]
        assert await contents(eve) == ["fills it"]


async def check_a_message_given_back_to_nobody_counts_no_attempt(subject: Subject) -> None:
    """What is given back after its mailbox was unregistered is dead, with its attempt unused."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "work")
        delivery = await claimed(bob)
        await bus.unregister("bob")
        await delivery.give_back()
        [letter] = await bus.dead_letters("bob")
        assert (letter.reason, letter.attempts) == ("unregistered", 0)


async def check_who_waits_hears_of_an_expiry(subject: Subject) -> None:
    """`settled()` returns soon after a ttl ran out, although nobody else calls the store; the
    callback for dead letters is told as well."""
    async with subject.bus() as bus:
        died: list[str] = []
        bus.on_dead_letter(lambda letter: died.append(letter.id))
        bob = await bus.register("bob")
        receipt = await bob.send("bob", "soon over", ttl=0.2)
        assert await receipt.settled(timeout=2) == "dead"
        await bob.claim(timeout=0)
        await until(lambda: died == [receipt.id], "the callback is told, once")


async def check_an_answer_needs_nothing_kept(subject: Subject) -> None:
    """A bus that keeps nothing of what is finished can still answer, and goes on."""
    async with subject.bus(history=0, retention=0) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        asking = asyncio.create_task(ada.request("bob", "hi", timeout=0.5))
        delivery = await claimed(bob, 5)
        await delivery.reply("hello")
        await delivery.ack()
        await asyncio.wait({asking})
        asking.exception()  # the answer, or that it is not kept
        await ada.send("bob", "next")
        assert await contents(bob) == ["next"]


async def check_a_settled_token_is_worth_nothing(subject: Subject) -> None:
    """The token of a delivery that was settled, in whatever way, cannot be resumed."""
    async with subject.bus(retry=RetryPolicy(base=0, jitter="none")) as bus:
        bob = await bus.register("bob")
        for settle in ("nack", "give_back", "ack", "reject"):
            await bob.send("bob", settle)
            delivery = await claimed(bob)
            await getattr(delivery, settle)()
            with raises(LeaseLostError):
                await (await bob.resume(delivery.token)).ack()
            with raises(LeaseLostError):
                await bob.resume(delivery.token)
            await contents(bob)


async def check_a_discarded_message_is_still_known(subject: Subject) -> None:
    """The same message delivered again after it was discarded is a duplicate, no conflict."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        message = AgentMessage("bob", "bob", "hi")
        await bus.deliver(message)
        await (await claimed(bob)).reject("no")
        assert await bus.discard(message.id) == 1
        assert (await bus.deliver(message)).duplicate
        assert await contents(bob) == []
