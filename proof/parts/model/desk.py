"""A bus and the model of it, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine

from afk.messaging import (
    AgentMailbox,
    AgentMessage,
    Delivery,
    IdempotencyConflictError,
    MailboxFullError,
    MessageBus,
    UnknownAgentError,
)
from afk.messaging.testing import FakeClock

from .lifecycle import BOXES, POLICY, Asked, Mail, Model
from .places import Make

T = TypeVar("T")
SENT: Bundle[Mail] = Bundle("sent")
HELD: Bundle[Held] = Bundle("held")
REFUSED = {
    "conflict": IdempotencyConflictError,
    "unknown": UnknownAgentError,
    "full": MailboxFullError,
}
boxes = st.sampled_from(sorted(BOXES))


@dataclass
class Held:
    """A delivery, and which lease of its message it is."""

    delivery: Delivery[AgentMessage]
    mail: Mail
    fence: int
    attempt: int


class Desk(RuleBasedStateMachine):
    """A bus and the model of it, side by side; the rules are in what inherits from it."""

    def __init__(self, make: Make) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        store = make(self.clock)
        self.bus = MessageBus(store, retry=POLICY, history=1e9, retention=1e9)
        self.ada = self.bus.mailbox("ada")
        self.model = Model(self.clock.now)
        self.waiting: dict[str, asyncio.Task[AgentMessage]] = {}
        """Who waits for the answer to a request, by its id."""
        self.box: dict[str, AgentMailbox] = {}
        for name in BOXES:
            self.join(name)

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(call)

    def join(self, name: str) -> None:
        ordered, capacity = BOXES[name]
        self.box[name] = self.run(self.bus.register(name, ordered=ordered, capacity=capacity))

    def teardown(self) -> None:
        for waiter in self.waiting.values():
            waiter.cancel()
        self.run(self._ended())
        self.loop.close()

    async def _ended(self) -> None:
        await asyncio.gather(*self.waiting.values(), return_exceptions=True)
        await self.bus.aclose()

    def refused(self, verdict: str, call: Coroutine[Any, Any, Any]) -> None:
        """It must be refused in this way."""
        with pytest.raises(REFUSED[verdict]):
            self.run(call)

    def sent(self, asked: Asked) -> Mail | None:
        """Send it; what came of it, if it is new. As the model says."""
        call = self.ada.send(
            asked.box,
            asked.content,
            priority=asked.priority,
            thread_id=asked.thread,
            delay=asked.delay,
            ttl=asked.ttl,
            idempotency_key=asked.key,
        )
        verdict = self.model.verdict(asked)
        if verdict in REFUSED:
            self.refused(verdict, call)
            return None
        receipt = self.run(call)
        assert receipt.duplicate == (verdict == "duplicate")
        if receipt.duplicate:
            assert receipt.id == self.model.keys[asked.name].id
            return None
        return self.model.accept(receipt.id, asked)
