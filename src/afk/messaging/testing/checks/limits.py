"""Promise 10: bounded, never trimmed."""

from __future__ import annotations

import asyncio
from typing import Any

from ...content import MAX_DEPTH
from ...errors import InvalidMessageError, MailboxFullError
from ...messages import AgentMessage, Priority
from ..clock import FakeClock
from ..expect import raises
from ..steps import AT_ONCE, PATIENCE, claimed, contents
from ..subject import Subject

OFTEN = 64
"""A send gives the loop a turn at least every so many messages."""


# -- the loop ----------------------------------------------------------------------------


async def check_a_busy_sender_lets_others_run(subject: Subject) -> None:
    """A send gives the loop a turn at least every 64 messages."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with subject.bus() as bus:
        ada, _ = await bus.register("ada"), await bus.register("bob")
        counter = asyncio.create_task(count_turns())
        await asyncio.sleep(0)
        seen = []
        for n in range(OFTEN * 4):
            await ada.send("bob", n)
            seen.append(turns)
        counter.cancel()
        assert all(later > now for now, later in zip(seen, seen[OFTEN:], strict=False))


async def check_a_receiver_runs_beside_a_busy_sender(subject: Subject) -> None:
    """A receiver in the same loop gets mail while the sender goes on sending."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob", capacity=1000)
        first = asyncio.create_task(bob.receive(timeout=PATIENCE))
        for n in range(900):
            await ada.send("bob", n)
            if first.done():
                break
        assert first.done(), "900 messages were sent before one was received"
        message = await first
        assert message is not None
        assert message.content == 0


# -- a full mailbox ----------------------------------------------------------------------


async def check_a_full_mailbox_refuses(subject: Subject) -> None:
    """Pending, scheduled and leased messages count towards capacity; a full mailbox raises
    MailboxFullError to the sender, and has room again once one is settled."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob", capacity=3)
        await ada.send("bob", "leased")
        held = await claimed(bob)
        await ada.send("bob", "scheduled", delay=1000)
        await ada.send("bob", "pending")
        for _ in range(2):
            with raises(MailboxFullError, "bob", "3"):
                await ada.send("bob", "more")
        await held.ack()
        await ada.send("bob", "more")
        with raises(MailboxFullError):
            await ada.send("bob", "too much")
        assert await contents(bob) == ["pending", "more"]


async def check_the_last_tenth_is_for_urgent_mail(subject: Subject) -> None:
    """Of a mailbox for ten, one place is for urgent mail; exact for one sender."""
    others: tuple[Priority, ...] = ("low", "normal", "high")
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob", capacity=10)
        for n in range(9):
            await ada.send("bob", n)
        for priority in others:
            with raises(MailboxFullError):
                await ada.send("bob", "no", priority=priority)
        await ada.send("bob", "fire", priority="urgent")
        with raises(MailboxFullError):
            await ada.send("bob", "second fire", priority="urgent")
        assert await contents(bob) == ["fire", *range(9)]


async def check_room_for_urgent_mail_can_be_taken_by_it_first(subject: Subject) -> None:
    """Urgent mail may fill the whole mailbox; then there is no room for any other."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob", capacity=10)
        for n in range(10):
            await ada.send("bob", n, priority="urgent")
        with raises(MailboxFullError):
            await ada.send("bob", "no")
        assert await contents(bob) == list(range(10))


async def check_concurrent_senders_overshoot_by_one_batch_each(subject: Subject) -> None:
    """Senders at the same time fill a mailbox to its capacity, and beyond it by no more than
    one message each when they send one by one."""
    capacity, senders = 20, 8
    async with subject.bus() as bus, subject.bus() as other:
        boxes = [await bus.register("ada"), await other.register("ada")]
        bob = await bus.register("bob", capacity=capacity)

        async def fill(n: int) -> None:
            for _ in range(capacity + 1):
                await boxes[n % 2].send("bob", n, priority="urgent")

        filling = await asyncio.gather(*map(fill, range(senders)), return_exceptions=True)
        assert all(isinstance(error, MailboxFullError) for error in filling)
        assert capacity <= await bob.message_count() <= capacity + senders


async def check_accepted_mail_is_never_trimmed(subject: Subject) -> None:
    """What a mailbox accepted stays, in order, however full it is and however often more is
    refused or a failed message comes back."""
    async with subject.bus(retry=AT_ONCE) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob", capacity=5)
        for n in range(5):
            await ada.send("bob", n)
        failed = await claimed(bob)
        with raises(MailboxFullError):
            await ada.send("bob", "more")
        await failed.nack("later", delay=0)
        with raises(MailboxFullError):
            await ada.send("bob", "more")
        assert await contents(bob) == [0, 1, 2, 3, 4]


async def check_a_copy_without_room_is_a_dead_letter(subject: Subject) -> None:
    """A broadcast copy without room becomes a dead letter (`full`) and its receipt says so; the
    other copies arrive."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await bus.register("eve", capacity=1)
        await ada.send("eve", "first")
        receipts = {r.message.id: await r.status() for r in await ada.broadcast("news")}
        assert sorted(map(str, receipts.values())) == ["dead", "pending"]
        assert await contents(bob) == ["news"]
        [letter] = await bus.dead_letters()
        assert (letter.agent, letter.reason) == ("eve", "full")
        assert letter.message is not None
        assert receipts[letter.id] == "dead"


async def check_a_dead_copy_is_announced_once(subject: Subject) -> None:
    """The callbacks of the bus whose call made a message dead hear of it once."""
    heard: list[str] = []
    async with subject.bus() as bus:
        ada, _ = await bus.register("ada"), await bus.register("eve", capacity=1)
        await ada.send("eve", "first")
        bus.on_dead_letter(lambda letter: heard.append(letter.id))
        [receipt] = await ada.broadcast("news")
    assert heard == [receipt.id]


async def check_limits_belong_to_the_mailbox(subject: Subject) -> None:
    """capacity and max_bytes are set when a mailbox is created; a sender or consumer with other
    settings does not change them."""
    async with subject.bus(capacity=2, max_bytes=1000) as bus, subject.bus() as other:
        await bus.register("bob")
        again, ada = await other.register("bob", capacity=50), await other.register("ada")
        with raises(InvalidMessageError, "1000"):
            await ada.send("bob", "x" * 1001)
        await ada.send("bob", 1)
        await ada.send("bob", 2)
        with raises(MailboxFullError):
            await ada.send("bob", 3)
        assert await contents(again) == [1, 2]


async def check_no_one_trims_anothers_mail(subject: Subject) -> None:
    """How long a message is kept is stamped on it by its sender: a bus with other settings that
    receives it, or works beside it, lets go of nothing sooner."""
    clock = FakeClock()
    careful = subject.bus(clock, history=1000, retention=1000)
    hasty = subject.bus(clock, history=0, history_max=0, retention=0, capacity=1)
    async with careful, hasty:
        ada, bob = await careful.register("ada"), await careful.register("bob")
        kept = await ada.send("bob", "kept", idempotency_key="k")
        waiting = await ada.send("ada", "waits")
        again = await hasty.register("bob")
        await (await claimed(again)).ack()
        for n in range(5):
            clock.advance(100)
            await again.send("bob", n)
            await (await claimed(again)).ack()
        message = await hasty.get(kept.id)
        assert message is not None
        assert message.content == "kept"
        assert (await ada.send("bob", "kept", idempotency_key="k")).duplicate
        assert await waiting.status() == "pending"
        assert await bob.message_count() == 0


# -- size and depth ----------------------------------------------------------------------


def nested(levels: int) -> Any:
    """A list in a list, `levels` of them."""
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


async def check_what_is_too_large_is_the_senders_error(subject: Subject) -> None:
    """A message whose record is larger than max_bytes is refused; just below it is delivered
    whole. What counts are the encoded bytes."""
    size = 4096
    async with subject.bus(max_bytes=size) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for content in ("x" * size, "\u2026" * (size // 3), ["x"] * (size // 4)):
            with raises(InvalidMessageError, "content", str(size)):
                await ada.send("bob", content)
        with raises(InvalidMessageError):
            await ada.send("bob", "small", metadata={"m": "x" * size})
        assert await bus.messages() == []
        await ada.send("bob", "x" * (size // 2))
        assert await contents(bob) == ["x" * (size // 2)]


async def check_a_large_message_arrives_whole(subject: Subject) -> None:
    """The default limit lets through a content of a million bytes."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", {"text": "\u00e4" * 500_000})
        [content] = await contents(bob)
        assert content == {"text": "\u00e4" * 500_000}


async def check_what_is_too_deep_is_the_senders_error(subject: Subject) -> None:
    """Content nested past 100 levels is refused, however deep; 100 levels are delivered."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for levels in (MAX_DEPTH + 1, 5000):
            with raises(InvalidMessageError, "deeper than 100"):
                await ada.send("bob", nested(levels))
        with raises(InvalidMessageError, "metadata"):
            await ada.send("bob", "hi", metadata={"m": nested(MAX_DEPTH)})
        assert await bus.messages() == []
        await ada.send("bob", nested(MAX_DEPTH))
        assert await contents(bob) == [nested(MAX_DEPTH)]


# -- ttl ---------------------------------------------------------------------------------


async def check_expired_mail_is_a_dead_letter(subject: Subject) -> None:
    """What no one took within its ttl is a dead letter (`expired`) and not delivered, whatever
    else waits."""
    clock = FakeClock()
    async with subject.bus(clock) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        short = await ada.send("bob", "short", ttl=10)
        await ada.send("bob", "long", ttl=1000)
        delayed = await ada.send("bob", "delayed", delay=20, ttl=15)
        clock.advance(9)
        assert await short.status() == "pending"
        clock.advance(2)
        assert await short.status() == "dead"
        assert [message.content for message in await bob.peek()] == ["long"]
        clock.advance(10)
        assert await contents(bob) == ["long"]
        letters = await bus.dead_letters("bob", reason="expired")
        assert [letter.id for letter in letters] == [short.id, delayed.id]


async def check_a_message_taken_in_time_does_not_expire(subject: Subject) -> None:
    """A ttl counts until a consumer takes the message: its work may last longer; when it comes
    back after the ttl, it is a dead letter."""
    clock = FakeClock()
    async with subject.bus(clock) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for content in ("done", "failed"):
            await ada.send("bob", content, ttl=10)
        done, failed = await claimed(bob), await claimed(bob)
        clock.advance(15)
        assert await bus.status(done.message.id) == "leased"
        await done.ack()
        await failed.nack("too late", delay=0)
        assert await bus.status(done.message.id) == "done"
        assert await bus.status(failed.message.id) == "dead"


async def check_a_message_without_ttl_waits(subject: Subject) -> None:
    """Without a ttl a message waits until it is taken; a zero ttl is dead at once."""
    clock = FakeClock()
    async with subject.bus(clock) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", "waits")
        gone = await ada.send("bob", "at once or never", ttl=0)
        clock.advance(10_000_000)
        assert await contents(bob) == ["waits"]
        assert await gone.status() in ("dead", None)


async def check_a_redriven_letter_outlives_its_retention(subject: Subject) -> None:
    """Once redriven, an expired dead letter is mail like any other, which nothing lets go of."""
    clock = FakeClock()
    async with subject.bus(clock, history=1, retention=20) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", "expired", ttl=100)
        clock.advance(101)
        [letter] = await bus.dead_letters()
        assert await bus.redrive(letter.id) == 1
        clock.advance(50)
        await bob.message_count()
        assert [letter.id for letter in await bus.dead_letters()] == []
        assert await contents(bob) == ["expired"]


async def check_expired_letters_are_kept_for_retention(subject: Subject) -> None:
    """An expired dead letter is kept for `retention`, and no longer; others stay."""
    clock = FakeClock()
    async with subject.bus(clock, history=1, retention=100) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", "rejected")
        await (await claimed(bob)).reject("no")
        await bus.deliver(AgentMessage("ada", "bob", "kept"))
        await ada.send("bob", "expired", ttl=10)
        clock.advance(11)
        assert [letter.reason for letter in await bus.dead_letters()] == ["rejected", "expired"]
        clock.advance(99)
        assert [letter.reason for letter in await bus.dead_letters()] == ["rejected", "expired"]
        clock.advance(100)
        await bob.message_count()
        assert [letter.reason for letter in await bus.dead_letters()] == ["rejected"]
