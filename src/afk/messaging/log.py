"""The library's logger; it says nothing unless the application sets up logging.

Its records have the attributes in `IDS`, None where there is none. What they say of messages and
errors is text from elsewhere, so control characters in it are shown as escapes.
"""

import logging
from traceback import format_exception
from typing import Any

IDS = ("mailbox", "message_id", "correlation_id", "attempt")


def ids(
    mailbox: str | None = None,
    message_id: str | None = None,
    correlation_id: str | None = None,
    attempt: int | None = None,
) -> dict[str, Any]:
    """The `extra` of a log record about a message."""
    return dict(zip(IDS, (mailbox, message_id, correlation_id, attempt), strict=True))


def printable(text: str) -> str:
    """Control characters as escapes: nothing that ends a line or that a terminal obeys."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class _Plain:
    """An argument of a log record that is printable whichever way it is formatted."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return printable(str(self._value))

    def __repr__(self) -> str:
        return printable(repr(self._value))


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (int, float)) else _Plain(value)


def _tidy(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(_plain(value) for value in record.args)
    if record.exc_info and not record.exc_text:
        # Indented, so that no line of an error's text passes for a record.
        lines = "".join(format_exception(record.exc_info[1])).rstrip("\n").split("\n")
        record.exc_text = "\n".join("  " + printable(line) for line in lines)
    for name in IDS:
        value = getattr(record, name, None)
        setattr(record, name, printable(value) if isinstance(value, str) else value)
    return True


log = logging.getLogger("afk.messaging")
log.addFilter(_tidy)
