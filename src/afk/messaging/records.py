"""The wire record, its codec, and the two views to and from it (docs/wire-format.md)."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import msgspec
from msgspec import Raw, Struct

from .content import canonical, decode_as, decode_content, encode_content, shown
from .errors import InvalidMessageError
from .messages import (
    BROADCAST,
    AgentMessage,
    Context,
    InternalA2AEnvelope,
    MessageType,
    Priority,
    check_name,
    new_id,
)

WIRE_VERSION = 1
RESERVED = "afk."
_EMPTY = Raw(b"{}")


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One message as it is stored and sent, in either view. Unknown fields are ignored.

    Times are seconds since the epoch. `seq` and `final` number the parts of a streamed
    answer; `trace` carries the trace context (W3C names).
    """

    v: int
    id: str
    sender: str
    recipient: str
    content: Raw
    timestamp: float
    kind: MessageType = "event"
    priority: Priority = "normal"
    key: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    run_id: str = ""
    thread_id: str = ""
    conversation_id: str = ""
    metadata: Raw = _EMPTY
    hops: int = 0
    awaited: bool = False
    seq: int | None = None
    final: bool | None = None
    trace: dict[str, str] | None = None


Body = Record | bytes
"""A record as a store may hold it: itself (in memory) or its wire form."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def wire(body: Body) -> bytes:
    """The JSON bytes of a record."""
    return body if isinstance(body, bytes) else _encoder.encode(body)


def decode(body: Body) -> Record:
    """The record of these bytes; ValueError when they are no record of a known version."""
    if not isinstance(body, bytes):
        return body
    try:
        record = _decoder.decode(body)
    except RecursionError as error:
        raise ValueError(f"no record: {error}") from None
    if record.v != WIRE_VERSION:
        raise ValueError(f"wire version {record.v} is not {WIRE_VERSION}")
    return record


def fingerprint(body: Body) -> bytes:
    """What two sends under one key must share: type, content, correlation and thread (16 bytes)."""
    try:
        record = decode(body)
        parts = (record.kind, record.correlation_id, record.thread_id)
        text = msgspec.json.encode(parts) + canonical(record.content)
    except ValueError:
        text = wire(body)
    return hashlib.blake2b(text, digest_size=16).digest()


def new_record(
    sender: str,
    recipient: str,
    content: Any,
    *,
    kind: MessageType,
    priority: Priority,
    key: str | None,
    correlation_id: str | None,
    thread_id: str,
    metadata: dict[str, Any],
) -> Record:
    """The record of a letter that is written now, by an agent whose name is known to be one;
    InvalidMessageError names the field that cannot be stored."""
    return Record(
        v=WIRE_VERSION,
        id=new_id(),
        sender=sender,
        recipient=_recipient(recipient, "recipient"),
        content=encode_content(content),
        timestamp=time.time(),
        kind=kind,
        priority=priority,
        key=None if key is None else _key(key),
        correlation_id=None if correlation_id is None else _text(correlation_id, "correlation_id"),
        thread_id="" if thread_id == "" else _text(thread_id, "thread_id"),
        metadata=_metadata(metadata),
        awaited=kind == "request",
    )


def letter_record(message: AgentMessage, key: str | None = None) -> Record:
    """The record of a letter; InvalidMessageError names the field that cannot be stored."""
    context = message._context
    return Record(
        v=WIRE_VERSION,
        id=_checked_id(message.id),
        sender=check_name(message.sender, "sender"),
        recipient=_recipient(message.recipient, "recipient"),
        content=encode_content(message.content),
        timestamp=_number(message.timestamp, "timestamp"),
        kind=context.kind,
        priority=message.priority,
        key=_key(key),
        correlation_id=_optional(message.correlation_id, "correlation_id"),
        causation_id=_optional(message.causation_id, "causation_id"),
        run_id=context.run_id,
        thread_id=_text(context.thread_id, "thread_id"),
        conversation_id=context.conversation_id,
        metadata=_metadata(message.metadata),
        hops=context.hops,
        awaited=context.awaited,
        trace=context.trace,
    )


def envelope_record(envelope: InternalA2AEnvelope, key: str | None = None) -> Record:
    """The record of an envelope, under its idempotency key."""
    context = envelope._context
    if envelope.message_type not in ("request", "response", "event"):
        raise InvalidMessageError(
            f"message_type: {envelope.message_type!r} is not one of request, response, event"
        )
    if not isinstance(envelope.payload, dict):
        raise InvalidMessageError(
            f"payload: a dict is needed, not {type(envelope.payload).__name__}"
        )
    return Record(
        v=WIRE_VERSION,
        id=context.id,
        sender=check_name(envelope.source_agent, "source_agent"),
        recipient=_recipient(envelope.target_agent, "target_agent"),
        content=encode_content(envelope.payload, "payload"),
        timestamp=_number(envelope.timestamp_ms, "timestamp_ms") / 1000,
        kind=envelope.message_type,
        priority=envelope.priority,
        key=_key(envelope.idempotency_key if key is None else key),
        correlation_id=_optional(envelope.correlation_id, "correlation_id") or None,
        causation_id=_optional(envelope.causation_id, "causation_id"),
        run_id=_text(envelope.run_id, "run_id"),
        thread_id=_text(envelope.thread_id, "thread_id"),
        conversation_id=_text(envelope.conversation_id, "conversation_id"),
        metadata=_metadata(envelope.metadata),
        hops=context.hops,
        awaited=context.awaited,
        trace=context.trace,
    )


def letter(record: Record, reader: str = "", kind: Any = None) -> AgentMessage:
    """A record read as a letter by the agent `reader`, its content as `kind` if given."""
    content = decode_content(record.content) if kind is None else decode_as(record.content, kind)
    return AgentMessage(
        record.sender,
        record.recipient,
        content,
        id=record.id,
        correlation_id=record.correlation_id,
        priority=record.priority,
        timestamp=record.timestamp,
        metadata=_visible(record.metadata),
        causation_id=record.causation_id,
        _context=_context(record, reader),
    )


def envelope(record: Record, reader: str = "", kind: Any = None) -> InternalA2AEnvelope:
    """A record read as an envelope: missing ids are derived, bare content is wrapped."""
    payload = decode_content(record.content) if kind is None else decode_as(record.content, kind)
    if kind is None and not isinstance(payload, dict):
        payload = {"content": payload}
    correlation = record.correlation_id or record.id
    return InternalA2AEnvelope(
        message_type=record.kind,
        run_id=record.run_id,
        thread_id=record.thread_id,
        conversation_id=record.conversation_id or correlation,
        correlation_id=correlation,
        idempotency_key=record.key or record.id,
        source_agent=record.sender,
        target_agent=record.recipient,
        payload=payload,
        metadata=_visible(record.metadata),
        causation_id=record.causation_id,
        timestamp_ms=_milliseconds(record.timestamp),
        priority=record.priority,
        _context=_context(record, reader),
    )


def _milliseconds(timestamp: float) -> int:
    try:
        return round(timestamp * 1000)
    except OverflowError:
        raise ValueError(f"timestamp: {timestamp!r} is not a time") from None


def _context(record: Record, reader: str) -> Context:
    return Context(
        id=record.id,
        kind=record.kind,
        run_id=record.run_id,
        thread_id=record.thread_id,
        conversation_id=record.conversation_id,
        hops=record.hops,
        awaited=record.awaited,
        reader=reader,
        trace=record.trace,
    )


def _visible(metadata: Raw) -> dict[str, Any]:
    if metadata is _EMPTY:
        return {}
    visible: Any = decode_content(metadata)
    if not isinstance(visible, dict):
        raise ValueError(f"metadata: an object is needed, not {type(visible).__name__}")
    return {k: v for k, v in visible.items() if not k.startswith(RESERVED)}


def _metadata(metadata: Any) -> Raw:
    if not metadata and isinstance(metadata, dict):
        return _EMPTY
    if not isinstance(metadata, dict):
        raise InvalidMessageError(f"metadata: a dict is needed, not {type(metadata).__name__}")
    for key in metadata:
        if isinstance(key, str) and key.startswith(RESERVED):
            raise InvalidMessageError(f"metadata: {key!r}: keys starting with 'afk.' are reserved")
    return encode_content(metadata, "metadata")


def _key(value: object) -> str | None:
    if value == "":
        raise InvalidMessageError("idempotency_key: empty; leave it out, or name the message")
    return _optional(value, "idempotency_key")


def _recipient(name: object, where: str) -> str:
    return BROADCAST if name == BROADCAST else check_name(name, where)


def _checked_id(value: object) -> str:
    if isinstance(value, str) and 0 < len(value) <= 128 and value.isascii() and value.isprintable():
        return value
    raise InvalidMessageError(f"id: {str(value)[:140]!r} is not 1-128 printable ASCII characters")


def _optional(value: object, where: str) -> str | None:
    return None if value is None else _text(value, where)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise InvalidMessageError(f"{where}: a string is needed, not {type(value).__name__}")
    if len(value) > 512:
        raise InvalidMessageError(f"{where}: {len(value)} characters; at most 512 are kept")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidMessageError(f"{where}: a lone surrogate is not valid text") from None
    return value


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e15:
        raise InvalidMessageError(f"{where}: {shown(value)} is not a time")
    return value
