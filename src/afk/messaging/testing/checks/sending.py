"""Promises 1, 2, 11: what is accepted is kept, once per key, and a typo is an error."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from msgspec.structs import replace

from ...bus import MessageBus
from ...connect import connect
from ...errors import (
    IdempotencyConflictError,
    InvalidMessageError,
    MailboxFullError,
    StoreError,
    UnknownAgentError,
)
from ...messages import AgentMessage, InternalA2AEnvelope, new_id
from ...protocol import InternalA2AProtocol
from ...sending import SendOptions
from ...store import A2ADeliveryStore, Turn
from ..clock import FakeClock
from ..expect import raises
from ..processes import hear, run, say
from ..steps import PATIENCE, claimed, contents, until
from ..subject import Subject

# -- promise 1: accepted is kept ---------------------------------------------------------


async def check_a_sent_message_is_received(subject: Subject) -> None:
    """What one agent sends, the other receives: content, sender and priority unchanged."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        receipt = await ada.send("bob", {"n": 1}, priority="high", metadata={"m": [1]})
        message = await bob.receive(timeout=5)
        assert message is not None
        assert (message.sender, message.recipient) == ("ada", "bob")
        assert (message.id, message.content) == (receipt.id, {"n": 1})
        assert (message.priority, message.metadata) == ("high", {"m": [1]})


async def check_the_store_says_what_it_gives(subject: Subject) -> None:
    """The capabilities and the durability on every receipt are those the store claims."""
    async with subject.bus() as bus:
        ada = await bus.register("ada")
        receipt = await ada.send("ada", "hi")
        assert bus.capabilities == subject.capabilities
        assert receipt.durability == bus.durability == subject.capabilities.durability


async def check_an_accepted_message_survives_the_bus(subject: Subject) -> None:
    """When a send returns, the message is kept: the next bus over the place delivers it."""
    async with subject.bus() as bus:
        await bus.register("bob")
        sent = await (await bus.register("ada")).send("bob", {"kept": True})
    async with subject.bus() as bus:
        message = await (await bus.register("bob")).receive(timeout=5)
        assert message is not None
        assert (message.id, message.content) == (sent.id, {"kept": True})


async def send_and_wait(bus: MessageBus) -> None:
    """Send one message, say its id, and wait to be killed."""
    await bus.register("bob")
    receipt = await (await bus.register("ada")).send("bob", "last words")
    say([receipt.id, receipt.durability])
    hear()


async def check_an_accepted_message_survives_a_killed_sender(subject: Subject) -> None:
    """A message of durability `process` or `disk` survives kill -9 of its sender (asked only of a
    place that other processes can reach)."""
    if subject.url is None:
        return
    async with run(subject, send_and_wait) as sender:
        sent, durability = await sender.line()
        sender.kill()
        await sender.wait()
    assert durability == subject.capabilities.durability
    assert durability != "memory"
    async with subject.bus() as bus:
        message = await (await bus.register("bob")).receive(timeout=5)
        assert message is not None
        assert message.id == sent


async def check_a_refused_send_stores_nothing(subject: Subject) -> None:
    """When a send raises anything but StoreError or a cancellation, nothing was stored: no
    message, no dead letter, no key."""
    async with subject.bus(max_bytes=2000) as bus:
        ada, _ = await bus.register("ada"), await bus.register("bob", capacity=1)
        with raises(UnknownAgentError):
            await ada.send("nobody", "hi", idempotency_key="k")
        for content in ({1}, "x" * 3000):
            with raises(InvalidMessageError):
                await ada.send("bob", content, idempotency_key="k")
        assert await bus.messages() == []
        kept = await ada.send("bob", 1, idempotency_key="k")
        assert not kept.duplicate
        with raises(IdempotencyConflictError):
            await ada.send("bob", 2, idempotency_key="k")
        with raises(MailboxFullError):
            await ada.send("bob", 3)
        assert [entry.id for entry in await bus.messages()] == [kept.id]
        assert await bus.dead_letters() == []


def _lose_connection(store: A2ADeliveryStore, *, after: bool) -> None:
    """Every put fails, before or after it took effect."""
    put = store.put

    async def lost(turns: tuple[Turn, ...]) -> Any:
        if after:
            await put(turns)
        raise StoreError("the connection was lost")

    store.put = lost  # type: ignore[method-assign]


async def check_a_send_that_comes_to_nothing_disturbs_nobody(subject: Subject) -> None:
    """Who waits for mail waits on through refused sends and duplicates, and has the next message
    at once."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", "first", idempotency_key="k")
        assert await contents(bob) == ["first"]
        waiting = asyncio.create_task(bob.receive(timeout=2 * PATIENCE))
        await asyncio.sleep(0.02)
        for _ in range(3):
            assert (await ada.send("bob", "first", idempotency_key="k")).duplicate
            with raises(IdempotencyConflictError, "k"):
                await ada.send("bob", "another", idempotency_key="k")
            await ada.send("bob", "far", delay=1000)
            await asyncio.sleep(0.02)
        assert not waiting.done()
        await ada.send("bob", "second")
        async with asyncio.timeout(PATIENCE / 4):
            message = await waiting
        assert message is not None
        assert message.content == "second"


async def check_each_who_waits_has_one_of_what_comes_at_once(subject: Subject) -> None:
    """Of many messages sent in one moment, some twice, each reader that waits has another one at
    once."""
    readers = 8
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for _ in range(3):
            waiting = [asyncio.create_task(bob.receive(timeout=PATIENCE)) for _ in range(readers)]
            await asyncio.sleep(0.02)
            letters = [AgentMessage("ada", "bob", number) for number in range(readers)]
            await asyncio.gather(*(bus.deliver(letter) for letter in [*letters, *letters[:3]]))
            async with asyncio.timeout(PATIENCE / 4):
                messages = await asyncio.gather(*waiting)
            assert {message.content for message in messages if message} == set(range(readers))
        assert await ada.message_count() == 0


async def check_a_send_of_unknown_outcome_is_repeated_with_its_key(subject: Subject) -> None:
    """A StoreError has the message and the key to send again, and sending it again makes it one
    message, whether the first was stored or not."""
    for after in (False, True):
        store = subject.store()
        bus = MessageBus(store)
        ada, bob = await bus.register("ada"), await bus.register("bob")
        _lose_connection(store, after=after)
        with raises(StoreError) as plain:
            await ada.send("bob", "plain")
        with raises(StoreError) as keyed:
            await ada.send("bob", "keyed", idempotency_key=f"k{after}")
        del store.put
        assert keyed.error.key == f"k{after}"
        assert plain.error.key == plain.error.message.id
        again = await bus.deliver(plain.error.message)
        assert again.duplicate == after
        again = await ada.send("bob", "keyed", idempotency_key=keyed.error.key)
        assert again.duplicate == after
        got = [await bob.receive(timeout=5), await bob.receive(timeout=5)]
        assert {message.content for message in got if message} == {"plain", "keyed"}
        assert await bob.message_count() == 0
        await bus.aclose()


async def check_a_cancelled_send_is_repeated_with_its_key(subject: Subject) -> None:
    """A send cancelled at any tick, and sent again with the same key, is one message."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for ticks in range(8):
            task = asyncio.create_task(ada.send("bob", ticks, idempotency_key=f"k{ticks}"))
            for _ in range(ticks):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await ada.send("bob", ticks, idempotency_key=f"k{ticks}")
            assert await bob.message_count() == ticks + 1


# -- promise 2: same key = same message --------------------------------------------------


async def check_a_key_is_accepted_once(subject: Subject) -> None:
    """A second send under a key stores nothing and returns the first receipt; another body
    under it is a conflict."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        first = await ada.send("bob", {"a": 1, "b": 2}, idempotency_key="k")
        again = await ada.send("bob", {"b": 2, "a": 1}, idempotency_key="k")
        assert not first.duplicate
        assert again.duplicate
        assert again.id == first.id
        assert await bob.message_count() == 1
        with raises(IdempotencyConflictError):
            await ada.send("bob", {"a": 3}, idempotency_key="k")


async def check_a_key_belongs_to_its_sender_and_recipient(subject: Subject) -> None:
    """The same key of another sender, or to another recipient, names another message."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        sent = [
            await ada.send("bob", 1, idempotency_key="k"),
            await ada.send("ada", 2, idempotency_key="k"),
            await bob.send("bob", 3, idempotency_key="k"),
        ]
        assert not any(receipt.duplicate for receipt in sent)
        assert len({receipt.id for receipt in sent}) == len(sent)


async def check_a_namespace_is_a_world_of_its_own(subject: Subject) -> None:
    """Agents, messages and keys of one namespace are unknown in another (asked only of a place
    with a URL)."""
    if subject.url is None:
        return
    other = connect(subject.url, namespace="other")
    async with subject.bus() as bus, other:
        ada = await bus.register("ada")
        await ada.send("ada", 1, idempotency_key="k")
        assert await other.agents() == []
        stranger = await other.register("ada")
        assert await stranger.message_count() == 0
        sent = await stranger.send("ada", 2, idempotency_key="k")
        assert not sent.duplicate
        assert await bus.status(sent.id) is None


async def race(bus: MessageBus) -> None:
    """Send under the one key when told to, and say what became of it."""
    ada = await bus.register("ada")
    say("ready")
    hear()
    receipt = await ada.send("bob", "the one", idempotency_key="k")
    say([receipt.id, receipt.duplicate])


async def check_64_racing_processes_send_one_message(subject: Subject) -> None:
    """Of 64 processes that send under one key at once, one stores the message and the others
    get its receipt (asked only of a place that other processes can reach)."""
    if subject.url is None:
        return
    async with subject.bus() as bus, AsyncExitStack() as stack:
        bob = await bus.register("bob")
        racers = [await stack.enter_async_context(run(subject, race)) for _ in range(64)]
        for racer in racers:
            await racer.line()
        for racer in racers:
            await racer.tell("go")
        said = [await racer.line() for racer in racers]
        assert len({message_id for message_id, _ in said}) == 1
        assert [duplicate for _, duplicate in said].count(False) == 1
        assert await bob.message_count() == 1


async def check_64_racing_tasks_send_one_message(subject: Subject) -> None:
    """Of 64 sends under one key at once, on two buses, one stores the message."""
    async with subject.bus() as bus, subject.bus() as other:
        bob = await bus.register("bob")
        senders = [await bus.register("ada"), await other.register("ada")]
        sent = await asyncio.gather(
            *(senders[i % 2].send("bob", "x", idempotency_key="k") for i in range(64))
        )
        assert len({receipt.id for receipt in sent}) == 1
        assert [receipt.duplicate for receipt in sent].count(False) == 1
        assert await bob.message_count() == 1


async def check_type_correlation_and_thread_are_part_of_the_body(subject: Subject) -> None:
    """Under a known key another correlation, thread or message type is a conflict."""
    async with subject.bus() as bus:
        ada, _ = await bus.register("ada"), await bus.register("bob")
        sent = SendOptions(correlation_id="c", thread_id="t", idempotency_key="k")
        await ada.send("bob", 1, **sent)
        with raises(IdempotencyConflictError):
            await ada.send("bob", 1, **(sent | SendOptions(correlation_id="d")))
        with raises(IdempotencyConflictError):
            await ada.send("bob", 1, **(sent | SendOptions(thread_id="u")))
        protocol = InternalA2AProtocol(bus)
        event = InternalA2AEnvelope(
            message_type="event",
            run_id="",
            thread_id="",
            conversation_id="",
            correlation_id="c",
            idempotency_key="e",
            source_agent="ada",
            target_agent="bob",
        )
        await protocol.send(event)
        with raises(IdempotencyConflictError):
            await protocol.send(replace(event, message_type="request"))


async def check_id_times_and_metadata_are_not_part_of_the_body(subject: Subject) -> None:
    """Under a known key another id, timestamp or metadata is the same message."""
    async with subject.bus() as bus:
        ada, _ = await bus.register("ada"), await bus.register("bob")
        first = await ada.send("bob", 1, metadata={"try": 1}, idempotency_key="k")
        again = await ada.send("bob", 1, metadata={"try": 2}, ttl=9, idempotency_key="k")
        assert again.duplicate
        message = AgentMessage("ada", "bob", 1, timestamp=1.0, metadata={"try": 1})
        await bus.deliver(message)
        later = replace(message, timestamp=2.0, metadata={"try": 2})
        assert (await bus.deliver(later)).duplicate
        assert again.id == first.id


async def check_a_digest_stands_in_for_a_body_that_is_gone(subject: Subject) -> None:
    """Past `history` an explicit key still knows the same body from another one."""
    clock = FakeClock()
    async with subject.bus(clock, history=10, retention=1000) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        first = await ada.send("bob", {"a": 1, "b": 2}, idempotency_key="k")
        await (await claimed(bob)).ack()
        clock.advance(11)
        again = await ada.send("bob", {"b": 2, "a": 1}, idempotency_key="k")
        assert (again.id, again.duplicate) == (first.id, True)
        with raises(IdempotencyConflictError):
            await ada.send("bob", {"a": 3}, idempotency_key="k")


async def _forgotten(bus: MessageBus, message_id: str) -> None:
    """A store may let go of what is over when it writes something else."""
    eve = await bus.register("eve")

    async def gone() -> bool:
        await eve.send("eve", "something else")
        return await bus.status(message_id) is None

    await until(gone, "the message is let go of")


async def check_an_explicit_key_lives_as_long_as_its_message_and_retention(
    subject: Subject,
) -> None:
    """An explicit key is known while its message is open, however long, and for `retention`
    after it ended; then it names a new message."""
    clock = FakeClock()
    async with subject.bus(clock, history=10, retention=100) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        first = await ada.send("bob", 1, idempotency_key="k")
        clock.advance(1000)
        assert (await ada.send("bob", 1, idempotency_key="k")).id == first.id
        await (await claimed(bob)).ack()
        clock.advance(99)
        assert (await ada.send("bob", 1, idempotency_key="k")).id == first.id
        clock.advance(2)
        await _forgotten(bus, first.id)
        assert not (await ada.send("bob", 1, idempotency_key="k")).duplicate


async def check_a_key_that_is_over_swallows_nothing(subject: Subject) -> None:
    """The first send under a key whose retention is over is a new message and is delivered, also
    when nothing else has happened in between."""
    clock = FakeClock()
    async with subject.bus(clock, history=10, retention=100) as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "old", idempotency_key="k")
        await (await claimed(bob)).ack()
        clock.advance(101)
        assert not (await bob.send("bob", "new", idempotency_key="k")).duplicate
        assert (await claimed(bob)).message.content == "new"


async def check_a_default_key_lives_as_long_as_its_message_and_history(subject: Subject) -> None:
    """A message's id is its key while it is open, and for `history` after it ended."""
    clock = FakeClock()
    async with subject.bus(clock, history=100, retention=1) as bus:
        bob = await bus.register("bob")
        message = AgentMessage("ada", "bob", "hi")
        await bus.deliver(message)
        clock.advance(1000)
        assert (await bus.deliver(message)).duplicate
        await (await claimed(bob)).ack()
        clock.advance(99)
        assert (await bus.deliver(message)).duplicate
        clock.advance(2)
        await _forgotten(bus, message.id)
        assert not (await bus.deliver(message)).duplicate


async def check_another_message_under_a_known_id_is_a_conflict(subject: Subject) -> None:
    """An id names one message in its namespace: another body, sender or recipient under it is
    an IdempotencyConflictError."""
    async with subject.bus() as bus:
        await bus.register("ada")
        await bus.register("bob")
        message = AgentMessage("ada", "bob", 1, id=new_id())
        await bus.deliver(message)
        for other in (
            replace(message, content=2),
            replace(message, sender="eve"),
            replace(message, recipient="ada"),
        ):
            with raises(IdempotencyConflictError):
                await bus.deliver(other)
        assert len(await bus.messages()) == 1


async def check_a_retry_keeps_the_key(subject: Subject) -> None:
    """Neither a nack nor a redrive changes the key: sending again under it is a duplicate."""
    async with subject.bus() as bus:
        ada = await bus.register("ada")
        bob = await InternalA2AProtocol(bus).register("bob")
        sent = await ada.send("bob", 1, idempotency_key="k")
        first = await bob.claim(timeout=5)
        assert first is not None
        await first.nack("again", delay=0)
        second = await bob.claim(timeout=5)
        assert second is not None
        assert (second.attempt, second.message.idempotency_key) == (2, "k")
        await second.reject("no")
        assert await bus.redrive(sent.id) == 1
        third = await bob.claim(timeout=5)
        assert third is not None
        assert (third.attempt, third.message.idempotency_key) == (1, "k")
        assert (await ada.send("bob", 1, idempotency_key="k")).id == sent.id


# -- promise 11: a typo is an error ------------------------------------------------------


async def check_an_unknown_recipient_is_an_error(subject: Subject) -> None:
    """A send to a name nobody registered raises UnknownAgentError with the nearest names."""
    async with subject.bus() as bus:
        ada = await bus.register("ada")
        await bus.register("writer")
        with raises(UnknownAgentError, "writr", "writer") as sent:
            await ada.send("writr", "hello")
        assert sent.error.nearest == ("writer",)
        with raises(UnknownAgentError):
            await ada.request("writr", "hello", timeout=5)
        with raises(UnknownAgentError):
            await bus.deliver(AgentMessage("ada", "writr", "hello"))
        with raises(KeyError):
            await ada.send("nobody-like-that", "hello")


async def check_what_a_name_may_be(subject: Subject) -> None:
    """Names are 1-128 ASCII letters, digits and `. _ - : / @`, not starting with `.` or `-`."""
    async with subject.bus() as bus:
        for name in ("a", "Z9", "_a", "team/ada.1-2_3:x@home", "@a", "x" * 128):
            mailbox = await bus.register(name)
            await mailbox.send(name, "hi")
            message = await mailbox.receive(timeout=5)
            assert message is not None
            assert message.sender == name
        for name in ("", ".a", "-a", "a b", "ä", "a\n", "#topic", "*", "a'b", "x" * 129):
            with raises(InvalidMessageError, "name"):
                await bus.register(name)
            with raises(InvalidMessageError):
                await bus.deliver(AgentMessage(name, "a", "hi"))
            with raises(InvalidMessageError):
                await bus.deliver(AgentMessage("a", name, "hi"))


async def check_names_differ_by_case_and_kind(subject: Subject) -> None:
    """Names that differ in case, or only in a separator, are different agents."""
    names = ["a.b", "a/b", "a:b", "a_b", "A.b"]
    async with subject.bus() as bus:
        boxes = {name: await bus.register(name) for name in names}
        for name in names:
            await boxes["a.b"].send(name, name)
        for name, box in boxes.items():
            message = await box.receive(timeout=5)
            assert message is not None
            assert message.content == name
            assert await box.message_count() == 0
