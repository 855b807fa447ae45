"""From what a caller wants to say to what a store is asked to keep."""

from __future__ import annotations

import math
from typing import Any, TypedDict

from msgspec import Struct
from msgspec.structs import replace

from .content import shown
from .errors import InvalidMessageError
from .lifecycle import DeadReason
from .messages import MessageType, Priority, rank
from .overdue import Deadline
from .records import Record, new_record
from .settings import Settings
from .store import Send
from .views import View


class Options(Struct, frozen=True, kw_only=True):
    """How a message is to be sent. ttl and delay in seconds."""

    correlation_id: str | None = None
    priority: Priority = "normal"
    metadata: dict[str, Any] = {}
    idempotency_key: str | None = None
    ttl: float | None = None
    delay: float = 0.0
    thread_id: str = ""


class SendOptions(TypedDict, total=False):
    """The same, as keyword arguments of `send`."""

    correlation_id: str | None
    priority: Priority
    metadata: dict[str, Any]
    idempotency_key: str | None
    ttl: float | None
    delay: float
    thread_id: str


class Sent(Struct, frozen=True, gc=False):
    """What a StoreError tells the caller to send again, and the caller's deadline, if any."""

    record: Record
    view: View[Any]
    deadline: Deadline | None = None

    @property
    def message(self) -> Any:
        """The message as it was sent."""
        return self.view.read(self.record, "", None)

    @property
    def key(self) -> str:
        """What it is known by."""
        return self.record.key or self.record.id


def compose(
    sender: str,
    recipient: str,
    content: Any,
    options: Options,
    *,
    kind: MessageType = "event",
) -> Record:
    """The record of a new message."""
    return new_record(
        sender,
        recipient,
        content,
        kind=kind,
        priority=options.priority,
        key=options.idempotency_key,
        correlation_id=options.correlation_id,
        thread_id=options.thread_id,
        metadata=options.metadata,
    )


def following(record: Record, origin: Record) -> Record:
    """A record sent while `origin` was handled: caused by it, one hop further at least, and
    carrying on its correlation, run and conversation unless it has its own."""
    return replace(
        record,
        correlation_id=record.correlation_id or origin.correlation_id or origin.id,
        causation_id=record.causation_id or origin.id,
        run_id=record.run_id or origin.run_id,
        conversation_id=record.conversation_id or origin.conversation_id,
        hops=max(record.hops, origin.hops + 1),
        trace=record.trace or origin.trace,
    )


def to_send(
    record: Record,
    settings: Settings,
    *,
    mailbox: str | None = None,
    ttl: float | None = None,
    delay: float = 0.0,
    alone: bool = False,
    compare: bool = True,
) -> Send:
    """The order to a store to keep `record` in a mailbox (its recipient's, if not named)."""
    dead: tuple[DeadReason, str] | None = None
    if record.hops > settings.max_hops:
        dead = ("hops", f"{record.hops} hops; at most {settings.max_hops} are allowed")
    return Send(
        body=record,
        id=record.id,
        mailbox=mailbox or record.recipient,
        sender=record.sender,
        rank=rank(record.priority),
        key=None if record.key == record.id else record.key,
        compare=compare,
        delay=seconds(delay, "delay") or 0.0,
        ttl=seconds(ttl, "ttl"),
        thread=record.thread_id,
        chain=record.correlation_id,
        awaited=record.awaited,
        answers=record.causation_id if record.kind == "response" else None,
        alone=alone,
        dead=dead,
        retention=settings.retention,
        history=settings.history,
        history_max=settings.history_max,
    )


def seconds(value: float | None, where: str) -> float | None:
    """The same, if it is a time that one can wait; InvalidMessageError names `where`, if not."""
    if value is None or (type(value) is float and 0.0 <= value < math.inf):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidMessageError(f"{where}: seconds are needed, not {value!r}")
    try:
        found = float(value)
    except OverflowError:  # an integer of hundreds of digits
        found = math.inf
    if not (math.isfinite(found) and found >= 0):
        raise InvalidMessageError(f"{where}: {shown(value)} is not zero or more seconds")
    return found
