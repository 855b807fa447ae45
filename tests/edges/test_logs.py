"""The log of a bus: a record for each thing it does, with ids, and with contents only if asked."""

from __future__ import annotations

import asyncio
import io
import logging
from typing import Any

import pytest

from afk.messaging import Delivery, InMemoryMessageBus, MessageBus, Retry, UnknownAgentError
from afk.messaging.edges import logs
from afk.messaging.log import log

EVIL = "\x1b[2J\r\nforged \x9b31m"


async def converse(bus: MessageBus) -> str:
    """A message that succeeds at its second attempt, one to nobody; the first one's id."""

    async def handle(delivery: Delivery) -> None:
        if delivery.attempt == 1:
            raise Retry(0.0)

    ada, bob = await bus.register("ada"), await bus.register("bob")
    receipt = await ada.send("bob", EVIL, correlation_id="talk", idempotency_key="k")
    await ada.send("bob", EVIL, correlation_id="talk", idempotency_key="k")
    with pytest.raises(UnknownAgentError):
        await ada.send("bo", 1)
    serving = asyncio.create_task(bob.serve(handle))
    await receipt.settled(timeout=5)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    return receipt.id


async def test_each_step_is_a_record_with_ids(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "afk.messaging")
    async with logs.instrument(InMemoryMessageBus()) as bus:
        message_id = await converse(bus)
    told: list[Any] = [record for record in caplog.records if hasattr(record, "event")]
    assert [(record.event, record.attempt) for record in told] == [
        ("sent", None),
        ("sent again", None),
        ("received", 1),
        ("handling", 1),
        ("failed", 1),
        ("nack", 1),
        ("received", 2),
        ("handling", 2),
        ("handled", 2),
        ("ack", 2),
    ]
    ids = {(record.mailbox, record.message_id, record.correlation_id) for record in told}
    assert ids == {("bob", message_id, "talk")}
    assert not any(hasattr(record, "body") for record in told)
    assert "forged" not in caplog.text
    assert told[0].getMessage() == f"bob: sent {message_id}"


async def test_bodies_are_shown_if_asked_and_never_raw(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "afk.messaging")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    log.addHandler(handler)
    try:
        bus = logs.instrument(InMemoryMessageBus(), level=logging.DEBUG, bodies=True)
        async with bus:
            await converse(bus)
    finally:
        log.removeHandler(handler)
    sent: Any = caplog.records[0]
    assert sent.body == r'"\u001b[2J\r\nforged \x9b31m"'
    assert sent.levelno == logging.DEBUG
    assert stream.getvalue().replace("\n", "").isprintable()
    assert "forged" in stream.getvalue()


async def test_below_its_level_nothing_is_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "afk.messaging")
    async with logs.instrument(InMemoryMessageBus()) as bus:
        await converse(bus)
    assert [record for record in caplog.records if record.levelno < logging.WARNING] == []
