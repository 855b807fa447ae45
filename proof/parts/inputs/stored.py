"""What is accepted comes back the same from every store; what cannot be read is buried."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from hypothesis import strategies as st

from afk.messaging import (
    A2ADeliveryStore,
    AgentMailbox,
    AgentMessage,
    InMemoryMessageBus,
    InvalidMessageError,
    MessageBus,
)
from afk.messaging.records import decode, letter, wire
from afk.messaging.store import Query, Send, Turn
from afk.messaging.testing import FakeClock

from ...trial import Ground
from ..model.places import maker
from .hostile import bodies, contents, texts
from .targets import same

PATIENCE = 30.0
letters: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"content": contents},
    optional={
        "metadata": st.dictionaries(texts, contents, max_size=2),
        "idempotency_key": texts,
        "correlation_id": texts,
        "thread_id": texts,
    },
)
names = st.from_regex(r"[A-Za-z0-9_:/@][A-Za-z0-9._:/@-]{0,127}", fullmatch=True)
raw = st.lists(bodies, min_size=1, max_size=4)


class Desk:
    """A bus of an own place, for many examples one after the other."""

    def __init__(self, ground: Ground) -> None:
        self.loop = asyncio.new_event_loop()
        self.store: A2ADeliveryStore = maker(ground)(FakeClock())
        self.bus = MessageBus(self.store, max_bytes=10**7)

    def run(self, call: Any) -> None:
        self.loop.run_until_complete(call)

    def close(self) -> None:
        self.loop.run_until_complete(self.bus.aclose())
        self.loop.close()

    async def round_trip(self, name: str, fields: dict[str, Any]) -> None:
        """Send it to this name: refused, or read back equal."""
        box = await self.bus.register(name)
        fields = dict(fields)
        content = fields.pop("content")
        if fields.get("idempotency_key"):  # keys outlive a mailbox
            fields["idempotency_key"] += uuid.uuid4().hex
        try:
            receipt = await box.send(name, content, **fields)
        except InvalidMessageError:
            assert await box.receive(0) is None, "refused, but stored"
            return
        try:
            _expect_it(await box.receive(PATIENCE), receipt.id, content, fields)
            _expect_it(await self._carried_over(receipt.id, name), receipt.id, content, fields)
            if fields.get("idempotency_key"):
                again = await box.send(name, content, **fields)
                assert again.duplicate, "its key is not known"
                assert again.id == receipt.id, "its key is another's"
        finally:
            await self.bus.unregister(name)  # so that keys and mail of examples do not mix

    async def _carried_over(self, message_id: str, name: str) -> AgentMessage | None:
        """What another store makes of the bytes that this one keeps."""
        [row] = await self.store.browse(Query(ids=(message_id,)))
        assert row.body is not None, "its bytes are gone"
        send = Send(body=bytes(wire(row.body)), id=message_id, mailbox=name, sender=name)
        async with InMemoryMessageBus(max_bytes=10**7) as other:
            box = await other.register(name)
            await other._core.store.put((Turn(sends=(send,)),))
            return await box.receive(0)

    async def buried(self, some: list[bytes]) -> None:
        """Put these into the store below the library: the mailbox goes on behind them."""
        name = f"b{uuid.uuid4().hex}"
        box = await self.bus.register(name)
        sends = [Send(body=body, id=uuid.uuid4().hex, mailbox=name, sender="ada") for body in some]
        for send in sends:
            (verdict,) = await self.store.put((Turn(sends=(send,)),))
            assert verdict.refusal is None
        last = await box.send(name, "good")
        await box.peek()
        good = [send for send in sends if readable(send.body)]
        await self._expect(box, len(good), last.id)
        await self.bus.messages(agent=name)
        dead = await self.bus.dead_letters(name)
        expected = {send.id: bytes(send.body) for send in sends if send not in good}  # type: ignore[arg-type]
        assert {letter.id: letter.raw for letter in dead} == expected, "not what was buried"
        assert {letter.reason for letter in dead} <= {"undecodable"}
        await self.bus.unregister(name)

    async def _expect(self, box: AgentMailbox, others: int, last: str) -> None:
        for _ in range(others):
            delivery = await box.claim(PATIENCE)
            assert delivery is not None
            await delivery.ack()
        delivery = await box.claim(PATIENCE)
        assert delivery is not None, "what is good is not delivered"
        assert delivery.message.id == last
        await delivery.ack()


def _expect_it(
    message: AgentMessage | None, message_id: str, content: Any, fields: dict[str, Any]
) -> None:
    assert message is not None, "accepted, but not delivered"
    assert message.id == message_id, "another one was delivered"
    assert same(message.content, content), "another content came back"
    assert same(message.metadata, fields.get("metadata", {})), "other metadata came back"
    assert message.correlation_id == fields.get("correlation_id")
    assert message.thread_id == fields.get("thread_id", "")


def readable(body: Any) -> bool:
    """Whether it is a letter after all."""
    try:
        letter(decode(body))
    except ValueError:
        return False
    return True
