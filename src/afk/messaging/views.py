"""The two lenses a mailbox can look through: letters and envelopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from msgspec import Struct

from .content import decode_content, encode_content
from .messages import AgentMessage, InternalA2AEnvelope
from .records import Record, envelope, envelope_record, letter, letter_record

M = TypeVar("M")
"""AgentMessage or InternalA2AEnvelope."""


class View(Struct, Generic[M], frozen=True):
    """How records become messages and back."""

    kind: type[M]
    read: Callable[[Record, str, Any], M]
    """(record, reader, content type or None) -> message; ValueError if it does not fit."""
    write: Callable[[M], Record]
    answer: Callable[..., M]
    """(message, content, **fields) -> its answer."""


def _answer_envelope(
    request: InternalA2AEnvelope, content: Any, **fields: Any
) -> InternalA2AEnvelope:
    if not isinstance(content, dict):  # an instance of a typed content is a dict by its JSON
        content = decode_content(encode_content(content, "payload"))
    return request.reply(content if isinstance(content, dict) else {"content": content}, **fields)


LETTERS: View[AgentMessage] = View(AgentMessage, letter, letter_record, AgentMessage.reply)
ENVELOPES: View[InternalA2AEnvelope] = View(
    InternalA2AEnvelope, envelope, envelope_record, _answer_envelope
)
