"""Who is there: register, unregister, agents, broadcast, stats, and the life of a bus."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from ...bus import MessageBus
from ...errors import (
    ConfigurationError,
    IdempotencyConflictError,
    InvalidMessageError,
    MailboxFullError,
    MessagingError,
    UnknownAgentError,
    UsageError,
)
from ...messages import BROADCAST, AgentMessage
from ..clock import FakeClock
from ..expect import raises
from ..processes import run, say
from ..steps import AT_ONCE, PATIENCE, claimed, contents, until
from ..subject import Subject

# -- register ----------------------------------------------------------------------------


async def check_register_is_idempotent(subject: Subject) -> None:
    """Registering a name again finds its mailbox with its mail, however often it is done."""
    async with subject.bus() as bus:
        first = await bus.register("ada")
        await first.send("ada", "mail")
        again = await bus.register("ada")
        assert (first.name, again.name) == ("ada", "ada")
        assert await bus.agents() == ["ada"]
        assert await contents(again) == ["mail"]


async def check_agents_are_listed_by_name(subject: Subject) -> None:
    """agents() is the sorted list of registered names, the same for every bus of the place."""
    async with subject.bus() as bus, subject.bus() as other:
        assert await bus.agents() == []
        for name in ("kim", "ada", "Bob"):
            await bus.register(name)
        assert await bus.agents() == await other.agents() == ["Bob", "ada", "kim"]


async def check_a_restarted_process_gets_its_mail_back(subject: Subject) -> None:
    """What arrives while nobody serves a name waits; what was claimed and not settled comes
    back when its lease ends."""
    clock = FakeClock()
    async with subject.bus(clock) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for content in ("claimed", "waiting"):
            await ada.send("bob", content)
        await claimed(bob, lease=10)
    clock.advance(100)
    async with subject.bus(clock) as bus:
        assert sorted(await contents(await bus.register("bob"))) == ["claimed", "waiting"]


async def check_competing_consumers_share_a_mailbox(subject: Subject) -> None:
    """Consumers of one name on several buses take each message once between them."""
    number, consumers = 60, 3
    async with AsyncExitStack() as stack:
        buses = [await stack.enter_async_context(subject.bus()) for _ in range(consumers)]
        boxes = [await bus.register("bob") for bus in buses]
        for n in range(number):
            await boxes[0].send("bob", n)
        taken: list[int] = []

        async def consume(n: int) -> None:
            while (message := await boxes[n].receive(timeout=0)) is not None:
                taken.append(message.content)

        await asyncio.gather(*map(consume, range(consumers)))
        assert sorted(taken) == list(range(number))
        assert await boxes[0].message_count() == 0


async def receive_one(bus: MessageBus) -> None:
    """Register a name, and say what arrives."""
    far = await bus.register("far")
    say("ready")
    message = await far.receive(timeout=PATIENCE)
    assert message is not None
    await bus.deliver(message.reply("from afar"))
    say(message.content)


async def check_any_process_may_register_any_name(subject: Subject) -> None:
    """An agent registered by one process can be written to by another (asked only of a place
    that other processes can reach)."""
    if subject.url is None:
        return
    async with subject.bus() as bus, run(subject, receive_one) as process:
        await process.line()
        ada = await bus.register("ada")
        assert await bus.agents() == ["ada", "far"]
        await ada.send("far", {"over": "there"})
        assert await process.line() == {"over": "there"}
        assert await process.wait() == 0
        assert await contents(ada) == ["from afar"]


async def check_a_mailbox_keeps_how_it_was_created(subject: Subject) -> None:
    """`ordered` is set by who creates the mailbox: asking it of one that is not is an error,
    not asking for it changes nothing."""
    async with subject.bus() as bus:
        await bus.register("plain")
        with raises(ConfigurationError, "plain", "ordered"):
            await bus.register("plain", ordered=True)
        await bus.register("ordered", ordered=True)
        ordered = await bus.register("ordered")
        for n in range(2):
            await ordered.send("ordered", n, thread_id="t")
        assert (await claimed(ordered)).message.content == 0
        assert await ordered.claim(timeout=0) is None
        for capacity in (0, -1, True):
            with raises(ConfigurationError, "capacity"):
                await bus.register("ada", capacity=capacity)


# -- unregister --------------------------------------------------------------------------


async def check_unregister_refuses_new_mail(subject: Subject) -> None:
    """After unregister a send is an UnknownAgentError, and the name is no longer listed."""
    async with subject.bus() as bus, subject.bus() as other:
        ada, bob = await bus.register("ada"), await other.register("bob")
        await bus.unregister("bob")
        assert await other.agents() == ["ada"]
        with raises(UnknownAgentError, "bob"):
            await ada.send("bob", "too late")
        with raises(UnknownAgentError, "bob"):
            await bob.claim(timeout=0)
        with raises(UnknownAgentError, "bob"):
            await bob.message_count()
        with raises(UnknownAgentError, "bbo", "bob"):
            await bus.register("bob")
            await bus.unregister("bbo")


async def check_unregister_buries_what_waits(subject: Subject) -> None:
    """What waits for an unregistered agent, now or later, becomes a dead letter
    (`unregistered`); registered again it can be redriven."""
    async with subject.bus() as bus:
        ada, _ = await bus.register("ada"), await bus.register("bob")
        sent = [await ada.send("bob", "now"), await ada.send("bob", "later", delay=1000)]
        await bus.unregister("bob")
        letters = await bus.dead_letters("bob")
        assert {letter.id for letter in letters} == {receipt.id for receipt in sent}
        assert {letter.reason for letter in letters} == {"unregistered"}
        assert await bus.redrive(agent="bob") == 0
        bob = await bus.register("bob")
        assert await bob.message_count() == 0
        assert await bus.redrive(agent="bob") == len(sent)
        assert sorted(await contents(bob)) == ["later", "now"]


async def check_work_under_way_survives_unregister(subject: Subject) -> None:
    """What was claimed before unregister can still be finished; what fails then is a dead
    letter (`unregistered`)."""
    async with subject.bus(retry=AT_ONCE) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for content in ("done", "failed"):
            await ada.send("bob", content)
        done, failed = await claimed(bob), await claimed(bob)
        await bus.unregister("bob")
        await done.ack()
        await failed.nack("no", delay=0)
        assert await bus.status(done.message.id) == "done"
        [letter] = await bus.dead_letters("bob")
        assert (letter.id, letter.reason) == (failed.message.id, "unregistered")


# -- broadcast ---------------------------------------------------------------------------


async def check_a_broadcast_reaches_everyone_else(subject: Subject) -> None:
    """A broadcast is a copy with an id of its own for every registered agent but the sender;
    its recipient stays `*`."""
    async with subject.bus() as bus:
        boxes = {name: await bus.register(name) for name in ("ada", "bob", "kim")}
        receipts = await boxes["ada"].broadcast("news", priority="high")
        assert len({receipt.id for receipt in receipts}) == len(boxes) - 1
        ids = set()
        for name in ("bob", "kim"):
            message = await boxes[name].receive(timeout=5)
            assert message is not None
            assert (message.sender, message.recipient) == ("ada", BROADCAST)
            assert (message.content, message.priority) == ("news", "high")
            ids.add(message.id)
        assert ids == {receipt.id for receipt in receipts}
        assert await boxes["ada"].message_count() == 0


async def check_a_reply_to_a_broadcast_comes_from_its_reader(subject: Subject) -> None:
    """A reply to a broadcast comes from the agent that read it, by hand or with the ack."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.broadcast("one")
        message = await bob.receive(timeout=5)
        assert message is not None
        await bus.deliver(message.reply("by hand"))
        await ada.broadcast("two")
        delivery = await claimed(bob)
        await delivery.reply("with the ack")
        await delivery.ack()
        for content in ("by hand", "with the ack"):
            answer = await ada.receive(timeout=5)
            assert answer is not None
            assert (answer.sender, answer.recipient) == ("bob", "ada")
            assert answer.content == content
        with raises(InvalidMessageError, "sender"):
            AgentMessage("ada", BROADCAST, "never read").reply("from whom?")


async def check_deliver_to_everyone_names_broadcast(subject: Subject) -> None:
    """deliver() and send() to `*` are an error that names `broadcast`."""
    async with subject.bus() as bus:
        ada = await bus.register("ada")
        await bus.register("bob")
        with raises(InvalidMessageError, "broadcast"):
            await bus.deliver(AgentMessage("ada", BROADCAST, "news"))
        with raises(InvalidMessageError, "broadcast"):
            await ada.send(BROADCAST, "news")
        with raises(MessagingError, "broadcast"):
            await ada.request(BROADCAST, "news", timeout=0.01)
        assert await bus.messages() == []


async def check_a_broadcast_is_repeated_like_any_message(subject: Subject) -> None:
    """The same message broadcast again is the same copies; who joined since gets one too."""
    async with subject.bus() as bus:
        await bus.register("bob")
        message = AgentMessage("nobody-registered", BROADCAST, "news")
        [first] = await bus.broadcast(message)
        kim = await bus.register("kim")
        again = await bus.broadcast(message)
        assert {receipt.duplicate for receipt in again} == {True, False}
        assert [r.id for r in again if r.duplicate] == [first.id]
        assert await contents(kim) == ["news"]


async def check_a_broadcast_in_doubt_can_be_repeated_under_its_key(subject: Subject) -> None:
    """A mailbox's broadcast again under its key is the same copies; other content is a conflict."""
    async with subject.bus() as bus:
        ada, bob, kim = [await bus.register(name) for name in ("ada", "bob", "kim")]
        first = await ada.broadcast("news", idempotency_key="k")
        again = await ada.broadcast("news", idempotency_key="k")
        assert [receipt.id for receipt in again] == [receipt.id for receipt in first]
        assert all(receipt.duplicate for receipt in again)
        with raises(IdempotencyConflictError, "key"):
            await ada.broadcast("other news", idempotency_key="k")
        for box in (bob, kim):
            assert await contents(box) == ["news"]


async def check_a_broadcast_is_one_step(subject: Subject) -> None:
    """While agents join and leave, each broadcast is stored for all who are there, or fails as
    a whole."""
    async with subject.bus() as bus, subject.bus() as other:
        ada, bob = await bus.register("ada"), await bus.register("bob")

        async def come_and_go() -> None:
            for n in range(10):
                await other.register(f"guest-{n}")
                await asyncio.sleep(0)

        async def shout() -> list[int]:
            return [len(await ada.broadcast(n)) for n in range(20)]

        told, _ = await asyncio.gather(shout(), come_and_go())
        assert told == sorted(told)
        assert await contents(bob) == list(range(20))
        assert len(await bus.messages(limit=10_000)) == sum(told)


async def check_a_broadcast_goes_by_the_directory_as_it_is(subject: Subject) -> None:
    """Who joined or left by another bus since the last broadcast is told, or not told, with the
    next one."""
    async with subject.bus() as bus, subject.bus() as other:
        ada = await bus.register("ada")
        assert await ada.broadcast("nobody") == []
        bob = await other.register("bob")
        assert len(await ada.broadcast("bob")) == 1
        kim = await other.register("kim")
        assert len(await ada.broadcast("both")) == 2
        await other.unregister("bob")
        [receipt] = await ada.broadcast("kim")
        assert await receipt.status() == "pending"
        assert await contents(kim) == ["both", "kim"]
        await other.unregister("kim")
        assert await ada.broadcast("nobody") == []
        bob = await other.register("bob")
        assert await contents(bob) == []
        assert {letter.reason for letter in await bus.dead_letters("bob")} == {"unregistered"}


async def check_a_broadcast_to_nobody_is_nothing(subject: Subject) -> None:
    """With no one else registered a broadcast stores nothing."""
    async with subject.bus() as bus:
        ada = await bus.register("ada")
        assert await ada.broadcast("anyone?") == []
        assert await bus.messages() == []


# -- stats -------------------------------------------------------------------------------


async def check_stats_count_each_mailbox(subject: Subject) -> None:
    """stats() has, for each mailbox, what is pending per priority and in all, leased, scheduled
    and dead."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for priority in ("urgent", "low", "low", "normal"):
            await ada.send("bob", "x", priority=priority)
        await ada.send("bob", "later", delay=1000)
        await (await claimed(bob)).reject("no")
        await claimed(bob)
        stats = await bus.stats()
        assert sorted(stats) == ["ada", "bob"]
        assert stats["bob"].pending == {"urgent": 0, "high": 0, "normal": 0, "low": 2, "all": 2}
        assert (stats["bob"].leased, stats["bob"].scheduled, stats["bob"].dead) == (1, 1, 1)
        assert stats["ada"].pending["all"] == 0
        assert await bob.message_count() == stats["bob"].pending["all"]


async def check_stats_say_how_long_mail_waits(subject: Subject) -> None:
    """oldest_age is how long the oldest waiting message has waited, None when none waits;
    last_seen is when a consumer last asked for mail, None if none ever did."""
    clock = FakeClock()
    async with subject.bus(clock) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        stats = (await bus.stats())["bob"]
        assert (stats.oldest_age, stats.last_seen) == (None, None)
        await ada.send("bob", 1)
        clock.advance(5)
        await ada.send("bob", 2)
        clock.advance(2)
        stats = (await bus.stats())["bob"]
        assert (round(stats.oldest_age or 0, 3), stats.last_seen) == (7, None)
        await bob.receive(timeout=5)
        seen = clock()
        clock.advance(1)
        stats = (await bus.stats())["bob"]
        assert (round(stats.oldest_age or 0, 3), round(stats.last_seen or 0, 3)) == (3, seen)


# -- a bus, and a receipt ----------------------------------------------------------------


async def check_a_bus_opens_itself(subject: Subject) -> None:
    """A bus opens on first use, also by several tasks at once; aclose() may be repeated, and
    after it every call says that the bus is closed."""
    bus = subject.bus()
    await asyncio.gather(*(bus.register(name) for name in ("ada", "bob", "kim")))
    ada = await bus.register("ada")
    await bus.aclose()
    await bus.aclose()
    for call in (bus.agents(), ada.send("bob", 1), ada.receive(timeout=1), bus.register("eve")):
        with raises(UsageError, "closed"):
            await call


async def check_closing_a_bus_wakes_who_waits(subject: Subject) -> None:
    """A call that waits on a bus ends when the bus is closed."""
    bus = subject.bus()
    ada = await bus.register("ada")
    waiting = asyncio.create_task(ada.receive(timeout=PATIENCE * 10))
    await until(lambda: _asked(bus), "the receiver waits")
    await bus.aclose()
    done, _ = await asyncio.wait({waiting}, timeout=PATIENCE)
    assert done, "receive() still waits on a closed bus"
    assert waiting.exception() is None or isinstance(waiting.exception(), UsageError)


async def _asked(bus: MessageBus) -> bool:
    return (await bus.stats())["ada"].last_seen is not None


async def check_a_receipt_follows_its_message(subject: Subject) -> None:
    """A receipt has the id and the message as sent, and says what became of it: status() now,
    settled() once it is over."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        receipt = await ada.send("bob", (1, 2), priority="low", metadata={"m": 1})
        assert receipt.id == receipt.message.id
        assert (receipt.message.content, receipt.message.priority) == ([1, 2], "low")
        assert (receipt.message.sender, receipt.message.recipient) == ("ada", "bob")
        assert await receipt.status() == "pending"
        with raises(TimeoutError):
            await receipt.settled(timeout=0.01)
        waiting = asyncio.create_task(receipt.settled(timeout=PATIENCE))
        delivery = await claimed(bob)
        assert await receipt.status() == "leased"
        await delivery.ack()
        assert await waiting == await receipt.status() == "done"


async def check_settled_says_how_it_ended(subject: Subject) -> None:
    """settled() is `done`, `dead` or `cancelled`."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        rejected = await ada.send("bob", 1)
        await (await claimed(bob)).reject("no")
        delayed, waiting = await ada.send("bob", 2, delay=9), await ada.send("bob", 3)
        assert await delayed.status() == "scheduled"
        assert await bus.cancel(delayed.id, waiting.id, rejected.id) == 2
        for receipt, end in ((rejected, "dead"), (delayed, "cancelled"), (waiting, "cancelled")):
            assert await receipt.settled(timeout=PATIENCE) == end
        assert await contents(bob) == []


async def check_what_was_leased_comes_back_to_a_name_registered_anew(subject: Subject) -> None:
    """Unregister and register a name while a message is leased: given back it waits there
    again, counts against the capacity, and can be settled."""
    async with subject.bus() as bus:
        bob = await bus.register("bob", ordered=True, capacity=10)
        await bob.send("bob", "old", thread_id="t")
        delivery = await bob.claim(timeout=5)
        assert delivery is not None
        await bus.unregister("bob")
        bob = await bus.register("bob", ordered=True, capacity=10)
        for number in range(8):
            await bob.send("bob", number, thread_id="t")
        with raises(MailboxFullError):
            await bob.send("bob", "too many")
        await delivery.give_back()
        again = await bob.claim(timeout=5)
        assert again is not None
        assert again.message.content == "old"
        await again.ack()
        assert await bob.message_count() == 8
