"""`afk context`: names for stores."""

from __future__ import annotations

from cyclopts import App

from . import contexts, shapes
from .place import BAD_INPUT, Json, fail

commands = App(name="context", help="Give stores names, and choose the one in use.")


@commands.command(name="set")
def set_one(name: str, url: str) -> None:
    """Give a store a name, and use it from now on.

    Examples
    --------
    afk context set team redis://localhost:6379/0

    Parameters
    ----------
    name
        A name of yours.
    url
        The store.
    """
    try:
        _, known = contexts.load()
    except contexts.ContextError as error:
        fail(error, BAD_INPUT)
    contexts.save(name, known | {name: url})
    print(f"{name} is in use")


@commands.command
def use(name: str) -> None:
    """Use a store that has a name.

    Parameters
    ----------
    name
        The name.
    """
    try:
        contexts.url_of(name)
        _, known = contexts.load()
    except contexts.ContextError as error:
        fail(error, BAD_INPUT)
    contexts.save(name, known)
    print(f"{name} is in use")


@commands.command(name="list")
def show_all(*, as_json: Json = False) -> None:
    """List the names; a star marks the one in use. URLs are not shown: they may hold passwords.

    Parameters
    ----------
    as_json
        Print them as JSON.
    """
    try:
        current, known = contexts.load()
    except contexts.ContextError as error:
        fail(error, BAD_INPUT)
    if as_json:
        shapes.put({"current": current, "contexts": sorted(known)})
    for name in () if as_json else sorted(known):
        print(f"{'*' if name == current else ' '} {name}")


@commands.command
def remove(name: str) -> None:
    """Forget a name.

    Parameters
    ----------
    name
        The name.
    """
    try:
        contexts.url_of(name)
        current, known = contexts.load()
    except contexts.ContextError as error:
        fail(error, BAD_INPUT)
    known.pop(name)
    contexts.save(None if current == name else current, known)
