"""Log records: the ids of the message they are about, and no text that a terminal would obey."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afk.messaging import Delivery, InMemoryMessageBus, RetryPolicy
from afk.messaging.log import IDS, ids, log, printable

EVIL = "\x1b]0;owned\x07\r\nCRITICAL forged \x9b31m\u2028\u202e"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What a plain handler writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message_id)s %(message)s"))
    log.addHandler(handler)
    before = log.level
    log.setLevel(logging.DEBUG)
    yield stream
    log.setLevel(before)
    log.removeHandler(handler)


def is_plain(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@given(st.text())
def test_printable_text_is_one_line_and_printable(text: str) -> None:
    assert printable(text).isprintable()
    assert not text.isprintable() or printable(text) == text


def test_no_control_character_comes_through(written: io.StringIO) -> None:
    log.warning("said: %s", EVIL)
    log.warning("said: %r", ValueError(EVIL))
    log.warning("%d of %.1f", 3, 4.0, extra=ids(message_id=EVIL))
    try:
        raise ValueError(EVIL)
    except ValueError:
        log.exception("failed")
    text = written.getvalue()
    assert is_plain(text)
    assert "3 of 4.0" in text
    assert "\nCRITICAL" not in text
    assert r"\x1b]0;owned\x07\r\nCRITICAL forged" in text
    assert "ValueError" in text


def test_every_record_has_the_attributes(caplog: pytest.LogCaptureFixture) -> None:
    log.warning("of no message")
    log.warning("of one", extra=ids("bob", "7", attempt=2))
    told = [{name: getattr(record, name) for name in IDS} for record in caplog.records]
    assert told == [
        dict.fromkeys(IDS),
        {"mailbox": "bob", "message_id": "7", "correlation_id": None, "attempt": 2},
    ]


async def test_a_failed_attempt_names_its_message(
    caplog: pytest.LogCaptureFixture, written: io.StringIO
) -> None:
    async def fail(delivery: Delivery) -> None:
        raise ValueError(delivery.message.content)

    async with InMemoryMessageBus(retry=RetryPolicy(max_attempts=1)) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        receipt = await ada.send("bob", EVIL, correlation_id=f"c{EVIL}")
        serving = asyncio.create_task(bob.serve(fail))
        await receipt.settled(timeout=5)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    failed, how, died = caplog.records
    assert (failed.mailbox, failed.message_id, failed.attempt) == ("bob", receipt.id, 1)
    assert (how.message_id, died.message_id) == (receipt.id, receipt.id)
    assert failed.correlation_id == f"c{printable(EVIL)}"
    assert is_plain(written.getvalue())
