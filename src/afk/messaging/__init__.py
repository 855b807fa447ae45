"""Agents are peers that talk by messages: a mailbox each, and a fate to rely on for each message.

    from afk.messaging import connect

    async with connect("sqlite:///team.db") as bus:
        writer = await bus.register("writer")
        ...

Backends are imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .bus import (
    InMemoryMessageBus,
    MessageBus,
    NATSMessageBus,
    PostgresMessageBus,
    RedisMessageBus,
    SQLiteMessageBus,
)
from .connect import connect
from .delivery import Delivery, Reject, Retry
from .errors import (
    ConfigurationError,
    IdempotencyConflictError,
    InvalidMessageError,
    LeaseLostError,
    MailboxFullError,
    MessagingError,
    RequestFailedError,
    RequestTimeoutError,
    StoreError,
    UnknownAgentError,
    UsageError,
)
from .lifecycle import RetryPolicy
from .mailbox import A2AMailbox, AgentMailbox
from .messages import AgentMessage, InternalA2AEnvelope, JSONValue
from .protocol import InternalA2AProtocol
from .receipts import Receipt
from .store import A2ADeliveryStore, Capabilities, MailboxStats
from .trace import DeadLetter, Trace

if TYPE_CHECKING:
    from .stores.memory import InMemoryA2ADeliveryStore as InMemoryA2ADeliveryStore
    from .stores.nats import NATSA2ADeliveryStore as NATSA2ADeliveryStore
    from .stores.postgres import PostgresA2ADeliveryStore as PostgresA2ADeliveryStore
    from .stores.redis import RedisA2ADeliveryStore as RedisA2ADeliveryStore
    from .stores.sqlite import SQLiteA2ADeliveryStore as SQLiteA2ADeliveryStore

_LAZY = {
    "InMemoryA2ADeliveryStore": ".stores.memory",
    "NATSA2ADeliveryStore": ".stores.nats",
    "PostgresA2ADeliveryStore": ".stores.postgres",
    "RedisA2ADeliveryStore": ".stores.redis",
    "SQLiteA2ADeliveryStore": ".stores.sqlite",
}

__all__ = [
    "A2ADeliveryStore",
    "A2AMailbox",
    "AgentMailbox",
    "AgentMessage",
    "Capabilities",
    "ConfigurationError",
    "DeadLetter",
    "Delivery",
    "IdempotencyConflictError",
    "InMemoryA2ADeliveryStore",
    "InMemoryMessageBus",
    "InternalA2AEnvelope",
    "InternalA2AProtocol",
    "InvalidMessageError",
    "JSONValue",
    "LeaseLostError",
    "MailboxFullError",
    "MailboxStats",
    "MessageBus",
    "MessagingError",
    "NATSA2ADeliveryStore",
    "NATSMessageBus",
    "PostgresA2ADeliveryStore",
    "PostgresMessageBus",
    "Receipt",
    "RedisA2ADeliveryStore",
    "RedisMessageBus",
    "Reject",
    "RequestFailedError",
    "RequestTimeoutError",
    "Retry",
    "RetryPolicy",
    "SQLiteA2ADeliveryStore",
    "SQLiteMessageBus",
    "StoreError",
    "Trace",
    "UnknownAgentError",
    "UsageError",
    "connect",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
