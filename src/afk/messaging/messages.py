"""The two views of one record: letters between agents, and run-aware envelopes."""

from __future__ import annotations

import itertools
import os
import re
import threading
import time
from typing import Any, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from .content import shown
from .errors import InvalidMessageError

Priority = Literal["low", "normal", "high", "urgent"]
MessageType = Literal["request", "response", "event"]
JSONValue = Any
"""None, bool, int, finite float, str, list or dict of these (see `content`)."""

PRIORITIES: tuple[Priority, ...] = ("urgent", "high", "normal", "low")
"""In delivery order; a priority's rank is its place here."""

BROADCAST = "*"
_NAME = re.compile(r"[A-Za-z0-9_:/@][A-Za-z0-9._:/@-]{0,127}\Z")


class _Ids:
    """Time-ordered ids: 48 bits of ms, 40 random bits a process, a 40-bit counter, in hex."""

    def __init__(self) -> None:
        self._seed()
        os.register_at_fork(after_in_child=self._seed) if hasattr(os, "register_at_fork") else None

    def _seed(self) -> None:
        self.start(0, int.from_bytes(os.urandom(4)), os.urandom(5).hex())

    def start(self, ms: int, count: int, random: str) -> None:
        """Go on from this time and count, under these ten digits."""
        self._lock = threading.Lock()  # in a forked child the old one may be held for ever
        self._ms, self._stamp, self._counter, self._random = ms, "", itertools.count(count), random

    def __call__(self) -> str:
        ms = time.time_ns() // 1_000_000
        # Never backwards, so that ids of one process stay in order when the clock is set back.
        if ms > self._ms or not self._stamp:
            with self._lock:
                self._ms = max(self._ms, ms)
                self._stamp = f"{self._ms:012x}"
        return f"{self._stamp}{next(self._counter) & 0xFF_FFFF_FFFF:010x}{self._random}"


new_id = _Ids()


class Context(Struct, frozen=True, kw_only=True, gc=False):
    """What a message carries beyond its public fields, so that either view keeps all of it.

    awaited: of a request, that its sender waits for the answer; of a response, that what it
    answers was awaited. reader: the agent that read it from its mailbox.
    """

    id: str = ""
    kind: MessageType = "event"
    run_id: str = ""
    thread_id: str = ""
    conversation_id: str = ""
    hops: int = 0
    awaited: bool = False
    reader: str = ""
    trace: dict[str, str] | None = None


class _Letter(Struct, frozen=True, eq=False):
    sender: str
    recipient: str
    content: Any


class AgentMessage(_Letter, frozen=True, kw_only=True, eq=False):
    """A letter from one agent to another.

    sender, recipient: agent names (`"*"` for a broadcast); content: any JSON value;
    id: 32 hex digits, time-ordered; priority: low, normal, high or urgent;
    timestamp: seconds since the epoch; metadata: JSON-safe dict;
    causation_id: the id of the message this one follows from.
    """

    id: str = field(default_factory=new_id)
    correlation_id: str | None = None
    priority: Priority = "normal"
    timestamp: float = field(default_factory=time.time)
    metadata: dict[str, Any] = {}
    causation_id: str | None = None
    _context: Context = Context()

    @property
    def thread_id(self) -> str:
        """The thread this message belongs to, empty if none."""
        return self._context.thread_id

    @property
    def hops(self) -> int:
        """How many messages led to this one."""
        return self._context.hops

    def reply(self, content: Any, **fields: Any) -> AgentMessage:
        """The answer to this message: parties swapped, correlated, caused by it.

        A reply to a broadcast comes from the agent that read it. `fields` override any field.
        """
        context = self._context
        sender = context.reader or self.recipient
        if sender == BROADCAST:
            raise InvalidMessageError(
                "sender: this broadcast was not read from a mailbox, so no agent can answer it"
            )
        answer: dict[str, Any] = {
            "sender": sender,
            "recipient": self.sender,
            "content": content,
            "correlation_id": self.correlation_id or self.id,
            "causation_id": self.id,
            "priority": self.priority,
            "_context": replace(context, kind="response", hops=context.hops + 1, reader=""),
        }
        return AgentMessage(**(answer | fields))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AgentMessage) and _public(self) == _public(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in _shown(self))
        return f"AgentMessage({shown})"


class InternalA2AEnvelope(Struct, frozen=True, kw_only=True, eq=False):
    """A typed message between agents of one system, with the ids of the run it belongs to.

    message_type: request, response or event; payload: JSON dict; timestamp_ms: milliseconds
    since the epoch; idempotency_key: the same key is the same message.
    """

    message_type: MessageType
    run_id: str
    thread_id: str
    conversation_id: str
    correlation_id: str
    idempotency_key: str
    source_agent: str
    target_agent: str
    payload: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    causation_id: str | None = None
    timestamp_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    priority: Priority = "normal"
    _context: Context = field(default_factory=lambda: Context(id=new_id()))

    @property
    def id(self) -> str:
        """The id of the message this envelope is a view of."""
        return self._context.id

    @property
    def hops(self) -> int:
        """How many messages led to this one."""
        return self._context.hops

    def reply(self, payload: dict[str, Any], **fields: Any) -> InternalA2AEnvelope:
        """The response: parties swapped, ids kept, caused by this one, under its own key."""
        context = self._context
        number = new_id()
        answer: dict[str, Any] = {
            "message_type": "response",
            "run_id": self.run_id,
            "thread_id": self.thread_id,
            "conversation_id": self.conversation_id,
            "correlation_id": self.correlation_id,
            "idempotency_key": number,
            "source_agent": context.reader or self.target_agent,
            "target_agent": self.source_agent,
            "payload": payload,
            "causation_id": self.id,
            "priority": self.priority,
            "_context": replace(
                context, id=number, kind="response", hops=context.hops + 1, reader=""
            ),
        }
        return InternalA2AEnvelope(**(answer | fields))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InternalA2AEnvelope) and _public(self) == _public(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in _shown(self))
        return f"InternalA2AEnvelope({shown})"


def _shown(message: Struct) -> tuple[str, ...]:
    return tuple(name for name in message.__struct_fields__ if not name.startswith("_"))


def _public(message: Struct) -> tuple[Any, ...]:
    return tuple(getattr(message, name) for name in _shown(message))


def check_name(name: object, where: str) -> str:
    """An agent name as it must be, or InvalidMessageError naming `where` and the rule."""
    if isinstance(name, str) and _NAME.match(name):
        return name
    if isinstance(name, str) and name.startswith("#"):
        raise InvalidMessageError(
            f"{where}: {name!r}: names starting with '#' are reserved for topics"
        )
    raise InvalidMessageError(
        f"{where}: {str(name)[:140]!r} is not an agent name; use 1-128 ASCII letters, digits and"
        " . _ - : / @, not starting with . or -"
    )


def rank(priority: object) -> int:
    """0 for urgent to 3 for low; InvalidMessageError for anything else."""
    try:
        return PRIORITIES.index(priority)
    except ValueError:
        raise InvalidMessageError(
            f"priority: {shown(priority)} is not one of low, normal, high, urgent"
        ) from None
