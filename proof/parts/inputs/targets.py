"""What takes input of others, each with what it may raise."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from unittest.mock import patch

from afk.messaging import AgentMessage, ConfigurationError, InvalidMessageError, connect
from afk.messaging.messages import Context, check_name
from afk.messaging.records import decode, envelope, fingerprint, letter, letter_record, wire

NO_CERTIFICATES = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
SLOWEST = 0.05
"""Seconds of processor time that one input may take."""


def read(body: bytes) -> None:
    """The decoder, and both views of what it decodes: ValueError, or a message."""
    fingerprint(body)
    with suppress(ValueError):
        record = decode(body)
        for view in (letter, envelope):
            with suppress(ValueError):
                view(record)
        again = decode(wire(record))
        assert (again.id, bytes(again.content)) == (record.id, bytes(record.content))


def compose(fields: tuple[Any, Any, Any, Any, Any]) -> None:
    """A message of any content, metadata, key, correlation and thread: refused, or kept."""
    content, metadata, key, correlation, thread = fields
    message = AgentMessage(
        "ada",
        "bob",
        content,
        metadata=metadata,
        correlation_id=correlation,
        _context=Context(thread_id=thread),
    )
    try:
        record = letter_record(message, key)
    except InvalidMessageError:
        return
    back = letter(decode(wire(record)))
    assert same(back.content, content), "another content came back"
    assert same(back.metadata, metadata), "other metadata came back"
    assert (record.key, back.correlation_id, back.thread_id) == (key, correlation, thread)


def name(text: str) -> None:
    """A name: taken as it is, or refused."""
    with suppress(InvalidMessageError, ConfigurationError):
        assert check_name(text, "name") == text


def url(text: str) -> None:
    """A URL: a bus, or ConfigurationError. A context for TLS reads all certificates of the machine,
    which takes as long as it takes: here there are none."""
    with suppress(ConfigurationError), patch.dict(os.environ, NO_CERTIFICATES):
        connect(text)


def same(one: Any, other: Any) -> bool:
    """Whether one is the other after JSON, which has no tuples."""
    if isinstance(other, (list, tuple)):
        return isinstance(one, list) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in other)
    return type(one) is type(other) and bool(one == other)


def timed(target: Callable[[Any], None], value: Any) -> float:
    """The processor time it takes; the least of five tries if the first was too slow. What others
    left to collect is not counted."""
    taken: list[float] = []
    gc.disable()
    try:
        while not taken or (min(taken) > SLOWEST and len(taken) < 5):
            began = time.thread_time()
            target(value)
            taken.append(time.thread_time() - began)
    finally:
        gc.enable()
    return min(taken)
