"""A store's refusal as the error that its caller sees."""

from __future__ import annotations

from .errors import (
    IdempotencyConflictError,
    InvalidMessageError,
    LeaseLostError,
    MailboxFullError,
    MessagingError,
)
from .store import Refusal


def error_of(refusal: Refusal) -> MessagingError:
    """The error for any refusal but that of an unknown name, which takes a look at the others."""
    if refusal.kind == "full":
        return MailboxFullError(
            f"the mailbox of {refusal.mailbox!r} is full ({refusal.limit} messages, the last"
            " tenth for urgent ones); try later, or register it with a larger capacity"
        )
    if refusal.kind == "too_large":
        return InvalidMessageError(
            f"content: the message is larger than the {refusal.limit} bytes that"
            f" {refusal.mailbox!r} takes; send a reference, or raise max_bytes"
        )
    if refusal.kind == "conflict":
        return IdempotencyConflictError(
            f"the key or id of this message already names {refusal.id}, which has another"
            " body, key or recipient; use a new key for a new message"
        )
    return LeaseLostError("this delivery was settled before, or its lease went to another")
