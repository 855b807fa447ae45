"""Promises 1, 2, 11: what is accepted is kept, once per key, and a typo is an error."""

from __future__ import annotations

from ...errors import IdempotencyConflictError, UnknownAgentError
from ..subject import Subject


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
        try:
            await ada.send("bob", {"a": 3}, idempotency_key="k")
        except IdempotencyConflictError:
            pass
        else:
            raise AssertionError("another body under the same key was accepted")


async def check_an_unknown_recipient_is_an_error(subject: Subject) -> None:
    """A send to a name nobody registered raises UnknownAgentError with the nearest names."""
    async with subject.bus() as bus:
        ada = await bus.register("ada")
        await bus.register("writer")
        try:
            await ada.send("writr", "hello")
        except UnknownAgentError as error:
            assert error.nearest == ("writer",)
        else:
            raise AssertionError("a message to nobody was accepted")
