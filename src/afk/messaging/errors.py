"""Everything that can go wrong, as one tree.

MessagingError
├── UnknownAgentError        (KeyError)      no such mailbox; the nearest names are given
├── InvalidMessageError      (ValueError)    the message cannot be stored as it is
├── MailboxFullError                         the recipient has no room; try later
├── IdempotencyConflictError                 this key or id already names another message
├── LeaseLostError                           the delivery is no longer yours; change nothing
├── RequestTimeoutError      (TimeoutError)  no answer yet; `.receipt.result()` still may have it
├── RequestFailedError                       the request is dead; `.reason` says why
├── StoreError                               the store failed; resend with `.key`, outcome unknown
├── ConfigurationError       (ValueError)    a URL, an option, a name or a missing extra
└── UsageError               (RuntimeError)  closed, another event loop, a write that would deadlock
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


class MessagingError(Exception):
    """The root: catch it to catch everything this library raises on purpose."""


class UnknownAgentError(MessagingError, KeyError):
    """The recipient is not registered. Register it, or correct the name."""

    def __init__(self, name: str, nearest: Iterable[str] = ()) -> None:
        self.name = name
        self.nearest = tuple(nearest)
        hint = f"; did you mean {' or '.join(map(repr, self.nearest))}?" if self.nearest else ""
        super().__init__(f"no agent is registered as {name!r}{hint}")

    def __str__(self) -> str:
        # KeyError would show the repr of the text.
        return str(self.args[0])


class InvalidMessageError(MessagingError, ValueError):
    """The message cannot be stored as it is; nothing was. The text names the field."""


class MailboxFullError(MessagingError):
    """The recipient's mailbox has no room; nothing was stored. Wait, or raise its capacity."""


class IdempotencyConflictError(MessagingError):
    """The key (or the id) already names a message with another body; nothing was stored."""


class LeaseLostError(MessagingError):
    """The delivery was settled before, or is someone else's now; nothing was changed."""


class RequestTimeoutError(MessagingError, TimeoutError):
    """No answer came in time. `receipt.result()` reads a late one, for `retention` seconds."""

    def __init__(self, text: str, receipt: Any = None) -> None:
        super().__init__(text)
        self.receipt = receipt


class RequestFailedError(MessagingError):
    """The request ended without an answer: `reason` is its dead-letter reason, `cancelled`, `gone`,
    or `undecodable`, if there is an answer that cannot be read."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


class StoreError(MessagingError):
    """The store failed and the outcome is unknown: send `message` again under `key`."""

    def __init__(self, text: str, *, message: Any = None, key: str | None = None) -> None:
        super().__init__(text)
        self.message = message
        self.key = key


class ConfigurationError(MessagingError, ValueError):
    """A URL, option, name or installed extra is not what it must be; the text says which."""


class UsageError(MessagingError, RuntimeError):
    """A call at the wrong time: after close, from another event loop, inside a transaction."""
