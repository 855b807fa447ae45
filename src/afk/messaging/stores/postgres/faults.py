"""What a server's refusal or a lost connection means for who asked."""

from __future__ import annotations

from typing import Final

import asyncpg

from ...errors import StoreError

LOST: Final = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, EOFError)
"""What a connection that is gone raises, besides a server that says that it ends it."""

DRIVER: Final = (asyncpg.PostgresError, *LOST)
"""What the driver raises."""

_AGAIN: Final = {
    "40001": "transactions were in each other's way",
    "40P01": "transactions were in each other's way",
    "55P03": "another transaction holds what is needed",
    "57014": "the server cancelled the statement",
}
"""Nothing was done; it may be asked again on the same connection."""

_ELSEWHERE: Final = {
    "25006": "the server takes no writes",
    "57P03": "the server is starting or stopping",
    "53300": "the server has no connection left",
    "0A000": "the store was upgraded meanwhile",
    "26000": "a connection pooler lost a prepared statement",
    "42P05": "a connection pooler mixed up prepared statements",
}
"""Nothing was done; it may be asked again on another connection."""

_ENDED: Final = ("57P01", "57P02", "57P05", "25P03")
"""The server ends the connection."""

_GONE: Final = ("3F000", "42P01", "42883", "42704")
_FULL: Final = ("53100", "53200")


def passing(error: BaseException) -> str | None:
    """Why this was not done now, if it may be later; None if asking again would not help."""
    code = code_of(error)
    return _AGAIN.get(code) or _ELSEWHERE.get(code)


def code_of(error: BaseException) -> str:
    """The server's code for an error; '' for anything else."""
    return (
        getattr(error, "sqlstate", None) or "" if isinstance(error, asyncpg.PostgresError) else ""
    )


def ends_connection(error: BaseException) -> bool:
    """Whether the connection is of no use after this."""
    code = code_of(error)
    ended = code in _ENDED or code in _ELSEWHERE or code.startswith("08")
    return ended or not isinstance(error, asyncpg.PostgresError)


def unsent(error: BaseException) -> str | None:
    """Why nothing was sent, if the driver saw that the connection is of no use any more."""
    if isinstance(error, asyncpg.DataError):  # of what was to be sent
        return None
    closed = isinstance(error, asyncpg.InterfaceError)
    # Closed by the server, which has said so, and no more: the driver waits for the rest.
    closing = isinstance(error, asyncpg.InternalClientError) and "switch to state" in str(error)
    return "the connection was lost" if closed or closing else None


def is_unknown(error: BaseException) -> bool:
    """Whether what was under way may have been done, or not."""
    return ends_connection(error) and not (passing(error) or unsent(error))


def refusal(place: str, error: BaseException) -> StoreError:
    """What a refusal that does not pass is to the caller."""
    code = code_of(error)
    if code in _GONE:
        text = f"the store's tables are gone ({error}); connect again, and they are made anew"
    elif code in _FULL:
        text = f"the server is out of space ({error})"
    else:
        text = f"refused: {error}"
    return StoreError(f"{place}: {text}; nothing was stored")
