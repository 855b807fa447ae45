"""Where a command works, and how it ends: 0 done, 1 not, 2 bad input."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, NoReturn

from cyclopts import Parameter

from afk.messaging import (
    ConfigurationError,
    InvalidMessageError,
    MessageBus,
    MessagingError,
    UnknownAgentError,
    connect,
)
from afk.messaging.connect import ENVIRONMENT

from . import contexts

FAILED, BAD_INPUT = 1, 2

CONTEXT = "AFK_CONTEXT"

Json = Annotated[bool, Parameter(name="--json", negative=())]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Place:
    """The store that a command works on.

    Parameters
    ----------
    url
        The store, such as sqlite:///team.db or redis://localhost; else AFK_MESSAGING_URL.
    context
        A name that `afk context set` gave to a URL; else AFK_CONTEXT, or the one in use.
    """

    url: str | None = None
    context: str | None = None


UNSAID = Place()
"""No option says which store: the environment does, or the context in use."""


def on(place: Place, work: Callable[[MessageBus], Awaitable[int | None]]) -> None:
    """Do the work on a bus there, and end with the exit code it returns."""
    try:
        code = asyncio.run(_on(url_of(place), work))
    except (ConfigurationError, InvalidMessageError, UnknownAgentError) as error:
        fail(error, BAD_INPUT)
    except (MessagingError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise  # the reader of our output has gone
        fail(error, FAILED)
    if code:
        sys.exit(code)


async def _on(url: str, work: Callable[[MessageBus], Awaitable[int | None]]) -> int | None:
    async with connect(url) as bus:
        return await work(bus)


def url_of(place: Place) -> str:
    """The URL it names; ends the command if none does. What is typed goes before what is set."""
    url = place.url
    if url is None and place.context is None:
        url = os.environ.get(ENVIRONMENT)
    if not url:
        try:
            url = contexts.url_of(place.context or os.environ.get(CONTEXT))
        except contexts.ContextError as error:
            fail(error, BAD_INPUT)
    if url.startswith("memory:"):
        fail(
            "memory:// lives in one process, and this is another; use a store they share", BAD_INPUT
        )
    return url


def fail(what: object, code: int, command: str = "") -> NoReturn:
    """End with one line on standard error."""
    complain(what, command)
    sys.exit(code)


def complain(what: object, command: str = "") -> None:
    """One line on standard error, whatever it holds: it can quote a name or a server."""
    line = " ".join(str(what).split())
    said = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    print(f"afk{' ' if command else ''}{command}: {said}", file=sys.stderr)
