"""The same bus in envelopes: for agents that carry run, thread and conversation ids."""

from __future__ import annotations

from typing import Any

from .bus import InMemoryMessageBus, MessageBus, bind
from .mailbox import A2AMailbox
from .messages import InternalA2AEnvelope
from .posting import ask, post
from .receipts import Receipt
from .records import envelope_record
from .sending import Options
from .store import A2ADeliveryStore
from .views import ENVELOPES


class InternalA2AProtocol:
    """Envelopes over a store or a bus; by default over a memory store of its own."""

    def __init__(self, store_or_bus: A2ADeliveryStore | MessageBus | None = None) -> None:
        if store_or_bus is None:
            store_or_bus = InMemoryMessageBus()
        elif not isinstance(store_or_bus, MessageBus):
            store_or_bus = MessageBus(store_or_bus)
        self.bus = store_or_bus
        """The bus below: traces, dead letters and closing are there."""

    async def register(
        self, name: str, *, ordered: bool = False, capacity: int | None = None, type: Any = None
    ) -> A2AMailbox:
        """The mailbox of this name, in envelopes; see `MessageBus.register`."""
        mailbox = A2AMailbox(self.bus._core, name, type)
        await bind(self.bus._core, name, ordered=ordered, capacity=capacity)
        return mailbox

    async def send(
        self, envelope: InternalA2AEnvelope, *, connection: Any = None
    ) -> Receipt[InternalA2AEnvelope]:
        """Send an envelope under its idempotency key; `connection` as for `MessageBus.deliver`."""
        record = envelope_record(envelope)
        return await post(self.bus._core, ENVELOPES, record, connection=connection)

    async def request(
        self, envelope: InternalA2AEnvelope, *, timeout: float = 30.0
    ) -> InternalA2AEnvelope:
        """Send an envelope and wait up to `timeout` s for its response."""
        return await ask(self.bus._core, ENVELOPES, envelope_record(envelope), timeout, Options())
