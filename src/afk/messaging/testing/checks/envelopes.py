"""Two views of one record: letters and envelopes (contract, sections 2 and 3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ...delivery import Delivery
from ...errors import (
    IdempotencyConflictError,
    InvalidMessageError,
    RequestFailedError,
    RequestTimeoutError,
    UnknownAgentError,
)
from ...mailbox import A2AMailbox
from ...messages import AgentMessage, InternalA2AEnvelope
from ...protocol import InternalA2AProtocol
from ...worker import Handler
from ..expect import raises
from ..steps import PATIENCE, claimed, contents
from ..subject import Subject


def envelope(**fields: Any) -> InternalA2AEnvelope:
    """A request of ada to bob with every id set."""
    ids = {
        "message_type": "request",
        "run_id": "run",
        "thread_id": "thread",
        "conversation_id": "conversation",
        "correlation_id": "correlation",
        "idempotency_key": "key",
        "source_agent": "ada",
        "target_agent": "bob",
        "payload": {"q": 1},
    }
    return InternalA2AEnvelope(**(ids | fields))


class Question(Struct):
    """The payload of `envelope()` as a type."""

    q: int


def ids_of(message: InternalA2AEnvelope) -> tuple[str, ...]:
    """What a conversation carries on."""
    return (message.run_id, message.thread_id, message.conversation_id, message.correlation_id)


async def read(mailbox: A2AMailbox) -> InternalA2AEnvelope:
    """The next envelope, which must be there."""
    message = await mailbox.receive(timeout=5)
    assert message is not None
    return message


@asynccontextmanager
async def answering(
    mailbox: A2AMailbox, handler: Handler[InternalA2AEnvelope]
) -> AsyncIterator[None]:
    """A consumer of envelopes at work."""
    task = asyncio.create_task(mailbox.serve(handler))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=PATIENCE)


# -- one record --------------------------------------------------------------------------


async def check_an_envelope_arrives_with_every_field(subject: Subject) -> None:
    """An envelope read as an envelope has every field as it was sent."""
    sent = envelope(
        metadata={"m": 1}, causation_id="cause", timestamp_ms=1_700_000_000_123, priority="urgent"
    )
    async with subject.bus() as bus:
        protocol = InternalA2AProtocol(bus)
        bob = await protocol.register("bob")
        receipt = await protocol.send(sent)
        got = await read(bob)
        assert got == sent
        assert got.id == sent.id == receipt.id
        assert receipt.message == sent


async def check_a_letter_reads_as_an_envelope(subject: Subject) -> None:
    """A letter reads as an `event`; its payload is the content if that is a dict, else
    {"content": content}; missing ids are derived."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await InternalA2AProtocol(bus).register("bob")
        first = await ada.send("bob", {"a": 1}, metadata={"m": 1}, priority="high")
        await ada.send("bob", [1], correlation_id="c", thread_id="t", idempotency_key="k")
        got = await read(bob)
        assert (got.message_type, got.payload, got.metadata) == ("event", {"a": 1}, {"m": 1})
        assert (got.source_agent, got.target_agent, got.priority) == ("ada", "bob", "high")
        assert (got.id, got.idempotency_key) == (first.id, first.id)
        assert ids_of(got) == ("", "", first.id, first.id)
        assert got.timestamp_ms == round(first.message.timestamp * 1000)
        got = await read(bob)
        assert (got.payload, got.idempotency_key) == ({"content": [1]}, "k")
        assert ids_of(got) == ("", "t", "c", "c")


async def check_an_envelope_reads_as_a_letter(subject: Subject) -> None:
    """An envelope reads as a letter whose content is the payload."""
    sent = envelope(metadata={"m": 1}, causation_id="cause", timestamp_ms=1_700_000_000_123)
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        await InternalA2AProtocol(bus).send(sent)
        got = await bob.receive(timeout=5)
        assert got is not None
        assert (got.sender, got.recipient, got.content) == ("ada", "bob", {"q": 1})
        assert (got.id, got.correlation_id, got.causation_id) == (sent.id, "correlation", "cause")
        assert (got.metadata, got.thread_id) == ({"m": 1}, "thread")
        assert round(got.timestamp * 1000) == sent.timestamp_ms


async def check_requests_and_answers_read_as_such(subject: Subject) -> None:
    """A letter that is awaited reads as a `request`, what answers it as a `response`."""
    kinds: list[str] = []

    async def handler(delivery: Delivery[InternalA2AEnvelope]) -> dict[str, Any]:
        kinds.append(delivery.message.message_type)
        return {"ok": True}

    async with subject.bus() as bus:
        protocol = InternalA2AProtocol(bus)
        ada, bob = await bus.register("ada"), await protocol.register("bob")
        eve = await protocol.register("eve")
        async with answering(bob, handler):
            answer = await ada.request("bob", "q", timeout=PATIENCE)
            asked = await eve.request("bob", {"q": 1}, timeout=PATIENCE)
        assert kinds == ["request", "request"]
        assert (answer.content, asked.payload) == ({"ok": True}, {"ok": True})
        assert asked.message_type == "response"
        assert asked.causation_id == asked.correlation_id


# -- replies carry all ids on ------------------------------------------------------------


async def check_a_reply_as_envelope_carries_all_ids_on(subject: Subject) -> None:
    """`reply` makes the response: parties swapped, ids kept, caused by what it answers, under a
    key of its own."""
    async with subject.bus() as bus:
        protocol = InternalA2AProtocol(bus)
        ada, bob = await protocol.register("ada"), await protocol.register("bob")
        await protocol.send(envelope(message_type="event"))
        question = await read(bob)
        await protocol.send(question.reply({"a": 2}, metadata={"m": 1}))
        answer = await read(ada)
        assert (answer.message_type, answer.payload) == ("response", {"a": 2})
        assert (answer.source_agent, answer.target_agent) == ("bob", "ada")
        assert ids_of(answer) == ids_of(question)
        assert (answer.causation_id, answer.metadata) == (question.id, {"m": 1})
        assert answer.idempotency_key != question.idempotency_key
        assert answer.hops == 1


async def check_a_reply_as_letter_carries_all_ids_on(subject: Subject) -> None:
    """A reply made to the letter that an envelope reads as has all the envelope's ids, by hand
    and with the ack."""
    async with subject.bus() as bus:
        protocol = InternalA2AProtocol(bus)
        ada, bob = await protocol.register("ada"), await bus.register("bob")
        await protocol.send(envelope(message_type="event", idempotency_key="1"))
        letter = await bob.receive(timeout=5)
        assert letter is not None
        await bus.deliver(letter.reply("by hand"))
        await protocol.send(envelope(message_type="event", idempotency_key="2"))
        delivery = await claimed(bob)
        await delivery.reply("with the ack")
        await delivery.ack()
        for content, cause in (("by hand", letter.id), ("with the ack", delivery.message.id)):
            answer = await read(ada)
            assert (answer.message_type, answer.payload) == ("response", {"content": content})
            assert ids_of(answer) == ("run", "thread", "conversation", "correlation")
            assert answer.causation_id == cause


async def check_a_reply_to_a_letter_as_envelope(subject: Subject) -> None:
    """A reply made to the envelope that a letter reads as comes back as a letter that is
    correlated and caused like any reply."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await InternalA2AProtocol(bus).register("bob")
        sent = await ada.send("bob", "hello", thread_id="t")
        delivery = await bob.claim(timeout=5)
        assert delivery is not None
        await delivery.reply({"hello": "ada"})
        await delivery.ack()
        answer = await ada.receive(timeout=5)
        assert answer is not None
        assert (answer.sender, answer.content) == ("bob", {"hello": "ada"})
        assert (answer.correlation_id, answer.causation_id) == (sent.id, sent.id)
        assert answer.thread_id == "t"


async def check_a_letters_reply_is_correlated(subject: Subject) -> None:
    """`msg.reply` swaps the parties and keeps the first correlation id all along a thread; its
    fields can be overridden."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        first = await ada.send("bob", "1")
        for n, (box, name) in enumerate([(bob, "bob"), (ada, "ada"), (bob, "bob")]):
            message = await box.receive(timeout=5)
            assert message is not None
            answer = message.reply(n, priority="low", metadata={"n": n})
            assert (answer.sender, answer.recipient) == (name, message.sender)
            assert (answer.correlation_id, answer.causation_id) == (first.id, message.id)
            assert (answer.priority, answer.metadata) == ("low", {"n": n})
            await bus.deliver(answer)
        assert len(await bus.trace(first.id)) == 1 + 3


async def check_typed_envelopes(subject: Subject) -> None:
    """A mailbox of envelopes registered with a type reads payloads as that type, and a handler's
    instance becomes the response's payload."""

    async def handler(delivery: Delivery[InternalA2AEnvelope]) -> Any:
        question: Any = delivery.message.payload
        return Question(question.q + 1)

    async with subject.bus() as bus:
        protocol = InternalA2AProtocol(bus)
        bob = await protocol.register("bob", type=Question)
        await bob.send("bob", Question(1))
        payload: Any = (await read(bob)).payload
        assert payload == Question(1)
        async with answering(bob, handler):
            answer = await protocol.request(envelope(), timeout=PATIENCE)
        assert answer.payload == {"q": 2}


# -- the protocol ------------------------------------------------------------------------


async def check_a_protocol_stands_on_a_store_or_a_bus(subject: Subject) -> None:
    """InternalA2AProtocol takes a store, a bus, or nothing; its `bus` is the bus below."""
    for key, below in (("1", subject.store()), ("2", subject.bus()), ("3", None)):
        protocol = InternalA2AProtocol(below)
        bob = await protocol.register("bob")
        await protocol.send(envelope(idempotency_key=key))
        assert (await read(bob)).payload == {"q": 1}
        assert await protocol.bus.agents() == ["bob"]
        await protocol.bus.unregister("bob")
        with raises(UnknownAgentError):
            await protocol.send(envelope(idempotency_key="other"))
        await protocol.bus.aclose()


async def check_a_handlers_result_becomes_the_response(subject: Subject) -> None:
    """protocol.request() sends the envelope and returns the response envelope that a handler's
    result, a dict or an envelope, becomes."""

    async def handler(delivery: Delivery[InternalA2AEnvelope]) -> Any:
        question = delivery.message
        answer = {"twice": question.payload["q"] * 2}
        return question.reply(answer, metadata={"m": 1}) if question.payload["q"] else answer

    async with subject.bus() as bus:
        protocol = InternalA2AProtocol(bus)
        await protocol.register("ada")
        bob = await protocol.register("bob")
        async with answering(bob, handler):
            for q in (0, 5):
                asked = envelope(payload={"q": q}, idempotency_key=str(q))
                answer = await protocol.request(asked, timeout=PATIENCE)
                assert (answer.message_type, answer.payload) == ("response", {"twice": q * 2})
                assert (answer.source_agent, answer.target_agent) == ("bob", "ada")
                assert ids_of(answer) == ids_of(asked)
                assert answer.causation_id == asked.id


async def check_a_requester_need_not_be_registered(subject: Subject) -> None:
    """The source of an envelope needs no mailbox to send or to be answered its request."""

    async def handler(delivery: Delivery[InternalA2AEnvelope]) -> dict[str, Any]:
        return {"hello": delivery.message.source_agent}

    async with subject.bus() as bus:
        protocol = InternalA2AProtocol(bus)
        bob = await protocol.register("bob")
        async with answering(bob, handler):
            answer = await protocol.request(envelope(source_agent="guest"), timeout=PATIENCE)
        assert answer.payload == {"hello": "guest"}
        assert await bus.agents() == ["bob"]


async def check_a_protocol_request_fails_like_any(subject: Subject) -> None:
    """protocol.request() raises RequestTimeoutError when no answer came, and RequestFailedError
    when the request is dead."""
    async with subject.bus() as bus:
        protocol = InternalA2AProtocol(bus)
        bob = await protocol.register("bob")
        with raises(RequestTimeoutError) as late:
            await protocol.request(envelope(), timeout=0.01)
        assert isinstance(late.error.receipt.message, InternalA2AEnvelope)
        asking = asyncio.create_task(
            protocol.request(envelope(idempotency_key="2"), timeout=PATIENCE)
        )
        while (delivery := await bob.claim(timeout=PATIENCE)) is not None:
            await delivery.reject("no")
            if delivery.message.idempotency_key == "2":
                break
        with raises(RequestFailedError) as failed:
            await asking
        assert failed.error.reason == "rejected"


async def check_an_envelopes_key_is_its_own(subject: Subject) -> None:
    """The idempotency_key of an envelope is its key: the same is a duplicate, whatever the
    object, and another payload under it a conflict."""
    async with subject.bus() as bus:
        protocol = InternalA2AProtocol(bus)
        bob = await protocol.register("bob")
        first = await protocol.send(envelope())
        again = await protocol.send(envelope(metadata={"try": 2}))
        assert (again.id, again.duplicate) == (first.id, True)
        for other in ({"payload": {"q": 2}}, {"correlation_id": "x"}, {"thread_id": "x"}):
            with raises(IdempotencyConflictError):
                await protocol.send(envelope(**other))
        assert await bob.message_count() == 1


async def check_an_envelope_is_checked(subject: Subject) -> None:
    """An envelope with a field that is not what it must be is refused with the field's name."""
    wrong: list[tuple[str, Any]] = [
        ("message_type", "question"),
        ("run_id", None),
        ("thread_id", 5),
        ("conversation_id", ["c"]),
        ("correlation_id", 1.5),
        ("idempotency_key", b"k"),
        ("source_agent", "a b"),
        ("target_agent", ""),
        ("payload", [1]),
        ("payload", {"n": {1}}),
        ("metadata", {"afk.x": 1}),
        ("timestamp_ms", "now"),
        ("priority", 5),
    ]
    async with subject.bus() as bus:
        protocol = InternalA2AProtocol(bus)
        await protocol.register("bob")
        for field, value in wrong:
            with raises(InvalidMessageError, field):
                await protocol.send(envelope(**{field: value}))
        with raises(InvalidMessageError, "broadcast"):
            await protocol.send(envelope(target_agent="*"))
        assert await bus.messages() == []


async def check_an_envelope_mailbox_has_the_same_methods(subject: Subject) -> None:
    """An A2AMailbox sends, broadcasts, counts and shows like any mailbox, in envelopes."""
    async with subject.bus() as bus:
        protocol = InternalA2AProtocol(bus)
        ada, bob = await protocol.register("ada"), await protocol.register("bob")
        receipt = await ada.send("bob", {"a": 1}, correlation_id="c", thread_id="t")
        assert isinstance(receipt.message, InternalA2AEnvelope)
        assert ids_of(receipt.message) == ("", "t", "c", "c")
        [copy] = await ada.broadcast({"b": 2})
        assert await bob.message_count() == 2
        assert [message.id for message in await bob.peek()] == [receipt.id, copy.id]
        letters = await bus.register("bob")
        assert await contents(letters) == [{"a": 1}, {"b": 2}]


async def check_envelopes_and_letters_share_a_mailbox(subject: Subject) -> None:
    """A name may be read through either view, in turn."""
    async with subject.bus() as bus:
        protocol = InternalA2AProtocol(bus)
        letters, envelopes = await bus.register("bob"), await protocol.register("bob")
        sent = [envelope(idempotency_key=str(n)) for n in range(2)]
        for one in sent:
            await protocol.send(one)
        first = await letters.receive(timeout=5)
        assert isinstance(first, AgentMessage)
        assert (await read(envelopes)) == replace(sent[1], metadata={})
        assert first.id == sent[0].id
