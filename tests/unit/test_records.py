"""The wire record: both views to it and back, and bytes of other versions."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from afk.messaging import (
    AgentMessage,
    InMemoryA2ADeliveryStore,
    InternalA2AEnvelope,
    InvalidMessageError,
    MessageBus,
)
from afk.messaging.messages import Context
from afk.messaging.records import (
    WIRE_VERSION,
    Record,
    decode,
    envelope,
    envelope_record,
    fingerprint,
    letter,
    letter_record,
    wire,
)
from afk.messaging.store import Send, Turn

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
names = st.from_regex(r"[A-Za-z0-9_:/@][A-Za-z0-9._:/@-]{0,20}", fullmatch=True)
ids = st.uuids().map(lambda made: made.hex)
metadata = st.dictionaries(text.filter(lambda key: not key.startswith("afk.")), text, max_size=3)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
contexts = st.builds(
    Context,
    kind=st.sampled_from(["request", "response", "event"]),
    run_id=text,
    thread_id=text,
    conversation_id=text,
    hops=st.integers(0, 200),
    awaited=st.booleans(),
)
letters = st.builds(
    AgentMessage,
    names,
    names | st.just("*"),
    json_values,
    id=ids,
    correlation_id=st.none() | text,
    causation_id=st.none() | ids,
    priority=st.sampled_from(["low", "normal", "high", "urgent"]),
    timestamp=st.floats(0, 1e11),
    metadata=metadata,
    _context=contexts,
)
envelopes = st.builds(
    InternalA2AEnvelope,
    message_type=st.sampled_from(["request", "response", "event"]),
    run_id=text,
    thread_id=text,
    conversation_id=text.filter(bool),
    correlation_id=text.filter(bool),
    idempotency_key=text.filter(bool),
    source_agent=names,
    target_agent=names,
    payload=st.dictionaries(text, json_values, max_size=3),
    metadata=metadata,
    causation_id=st.none() | ids,
    timestamp_ms=st.integers(0, 10**13),
    priority=st.sampled_from(["low", "normal", "high", "urgent"]),
    _context=st.builds(Context, id=ids, hops=st.integers(0, 9), awaited=st.booleans()),
)


# -- there and back ----------------------------------------------------------------------


@given(letters)
def test_a_letter_comes_back_whole(message: AgentMessage) -> None:
    record = decode(wire(letter_record(message)))
    back = letter(record)
    assert back == message
    assert (back.thread_id, back.hops) == (message.thread_id, message.hops)
    assert letter_record(back, record.key) == record


@given(envelopes)
def test_an_envelope_comes_back_whole(message: InternalA2AEnvelope) -> None:
    record = decode(wire(envelope_record(message)))
    back = envelope(record)
    assert back == message
    assert (back.id, back.hops) == (message.id, message.hops)
    assert envelope_record(back) == record


@given(envelopes)
def test_an_envelope_read_as_a_letter_loses_nothing(message: InternalA2AEnvelope) -> None:
    record = envelope_record(message)
    assert letter_record(letter(record), record.key) == record


@given(letters)
def test_a_letter_read_as_an_envelope_is_still_that_letter(message: AgentMessage) -> None:
    seen = envelope(letter_record(message))
    wrapped = isinstance(message.content, dict)
    assert seen.payload == (message.content if wrapped else {"content": message.content})
    assert (seen.id, seen.source_agent, seen.target_agent) == (
        message.id,
        message.sender,
        message.recipient,
    )
    assert seen.correlation_id == (message.correlation_id or message.id)
    assert seen.conversation_id == (message._context.conversation_id or seen.correlation_id)
    assert (seen.metadata, seen.priority) == (message.metadata, message.priority)


@given(envelopes, st.booleans())
def test_a_reply_through_either_view_carries_all_ids_on(
    message: InternalA2AEnvelope, as_letter: bool
) -> None:
    record = envelope_record(message)
    if as_letter:
        answer = letter_record(letter(record, record.recipient).reply({"a": 1}))
    else:
        answer = envelope_record(envelope(record, record.recipient).reply({"a": 1}))
    assert (answer.sender, answer.recipient) == (record.recipient, record.sender)
    for name in ("run_id", "thread_id", "conversation_id", "correlation_id", "awaited"):
        assert getattr(answer, name) == getattr(record, name)
    assert (answer.kind, answer.causation_id) == ("response", record.id)
    assert answer.hops == record.hops + 1


# -- the wire ----------------------------------------------------------------------------


def a_record(**fields: Any) -> Record:
    return replace(letter_record(AgentMessage("ada", "bob", {"n": 1}, id="1")), **fields)


def test_defaults_are_left_out() -> None:
    sent = msgspec.json.decode(wire(a_record(timestamp=1.5)))
    assert sent == {
        "v": WIRE_VERSION,
        "id": "1",
        "sender": "ada",
        "recipient": "bob",
        "content": {"n": 1},
        "timestamp": 1.5,
    }


@given(st.dictionaries(st.from_regex(r"x_[a-z]{1,8}", fullmatch=True), json_values, max_size=4))
def test_unknown_fields_are_ignored(extra: dict[str, Any]) -> None:
    record = a_record()
    sent = msgspec.json.decode(wire(record)) | extra
    assert decode(msgspec.json.encode(sent)) == record


def test_bytes_and_records_are_both_bodies() -> None:
    record = a_record()
    assert decode(record) is record
    assert wire(wire(record)) == wire(record)
    assert decode(wire(record)) == record


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b"\xff\xfe",
        b'{"v": 1}',
        b'{"v": "1", "id": "1", "sender": "a", "recipient": "b", "content": 1, "timestamp": 1}',
        b'{"v": 2, "id": "1", "sender": "a", "recipient": "b", "content": 1, "timestamp": 1}',
    ],
)
def test_what_is_no_record_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(body)
    assert len(fingerprint(body)) == 16, "it can be compared all the same"


@given(st.binary(max_size=60))
def test_any_bytes_are_a_record_or_a_value_error(body: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode(body)


@given(letters)
def test_reserved_metadata_is_hidden(message: AgentMessage) -> None:
    record = letter_record(message)
    inside = {**message.metadata, "afk.internal": True}
    shown = replace(record, metadata=msgspec.Raw(msgspec.json.encode(inside)))
    assert letter(shown).metadata == envelope(shown).metadata == message.metadata


# -- fingerprints ------------------------------------------------------------------------


@given(letters, ids, st.floats(0, 1e9), metadata)
def test_id_time_and_metadata_are_not_in_the_fingerprint(
    message: AgentMessage, other_id: str, time: float, other: dict[str, str]
) -> None:
    again = replace(message, id=other_id, timestamp=time, metadata=other, priority="low")
    assert fingerprint(letter_record(again)) == fingerprint(letter_record(message))
    assert fingerprint(wire(letter_record(message))) == fingerprint(letter_record(message))


def test_type_content_correlation_and_thread_are_in_the_fingerprint() -> None:
    others = [
        a_record(),
        a_record(kind="request"),
        a_record(content=msgspec.Raw(b'{"n":2}')),
        a_record(correlation_id="c"),
        a_record(thread_id="c"),
    ]
    assert len({fingerprint(record) for record in others}) == len(others)
    spaced = a_record(content=msgspec.Raw(b'{ "n" : 1 }'))
    assert fingerprint(spaced) == fingerprint(others[0])


# -- what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sender", "a b"),
        ("recipient", ""),
        ("id", ""),
        ("id", "x" * 129),
        ("id", "a\nb"),
        ("id", 5),
        ("timestamp", None),
        ("timestamp", True),
        ("timestamp", float("nan")),
        ("timestamp", 1e300),
        ("correlation_id", 5),
        ("causation_id", b"id"),
        ("metadata", None),
        ("metadata", {1: 1}),
        ("metadata", {"afk.": 1}),
        ("content", {1}),
    ],
)
def test_a_letter_is_checked_field_by_field(field: str, value: Any) -> None:
    good = {"sender": "ada", "recipient": "bob", "content": 1}
    message: Any = AgentMessage(**(good | {field: value}))
    with pytest.raises(InvalidMessageError, match=f"^{field}"):
        letter_record(message)


def body(**fields: Any) -> bytes:
    """A record of somebody else's making."""
    plain = {"v": 1, "id": "x", "sender": "a", "recipient": "b", "timestamp": 1.0, "content": 1}
    return msgspec.json.encode(plain | fields)


def test_a_record_nested_too_deep_is_a_value_error() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    for field in ("content", "metadata", "unknown"):
        with pytest.raises(ValueError, match="recursion"):
            letter(decode(body(**{field: msgspec.Raw(deep)})))


@pytest.mark.parametrize("view", [letter, envelope])
def test_metadata_that_is_no_object_is_a_value_error(view: Any) -> None:
    with pytest.raises(ValueError, match="metadata"):
        view(decode(body(metadata=[1])))


def test_a_time_beyond_all_times_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="timestamp"):
        envelope(decode(body(timestamp=1e308)))


async def test_what_cannot_be_read_is_not_shown_and_then_buried() -> None:
    store = InMemoryA2ADeliveryStore()
    async with MessageBus(store) as bus:
        bob = await bus.register("bob")
        hostile = Send(body=body(metadata=[1]), id="x", mailbox="bob", sender="a")
        await store.put((Turn(sends=(hostile,)),))
        await bob.send("bob", "healthy")
        assert [message.content for message in await bob.peek()] == ["healthy"]
        message = await bob.receive(timeout=0)
        assert message is not None
        assert message.content == "healthy"
        [dead] = await bus.dead_letters()
        assert (dead.id, dead.reason) == ("x", "undecodable")


@pytest.mark.parametrize("field", ["ttl", "delay"])
async def test_a_number_beyond_all_floats_is_the_senders_error(field: str) -> None:
    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        bob = await bus.register("bob")
        options: Any = {field: 10**5000}
        with pytest.raises(InvalidMessageError, match=field):
            await bob.send("bob", "x", **options)
        with pytest.raises(InvalidMessageError, match="priority"):
            await bob.send("bob", "x", priority=10**5000)  # type: ignore[arg-type]
