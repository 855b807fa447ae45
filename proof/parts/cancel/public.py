"""What a user can await: found by looking, so that nothing new is forgotten."""

from __future__ import annotations

import inspect

import afk.messaging
from afk.messaging import A2ADeliveryStore

PORT = A2ADeliveryStore.__name__
_BLOCKS = ("__aenter__", "__aexit__")


def coroutines() -> set[str]:
    """Class and method of each; those of every store under the name of the port."""
    found = set()
    for public in afk.messaging.__all__:
        kind = getattr(afk.messaging, public)
        if inspect.isclass(kind):
            found |= {_named(kind, name) for name, method in inspect.getmembers(kind, _awaited)}
    return {name for name in found if _is_public(name.partition(".")[2])}


def _awaited(member: object) -> bool:
    """Whether a call of it is awaited, or is a block or a loop that awaits."""
    inner = inspect.unwrap(member) if callable(member) else member
    return inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)


def _named(kind: type, name: str) -> str:
    """By the class that has it, whatever inherits it."""
    if kind.__name__.endswith(PORT.removeprefix("A2A")):
        return f"{PORT}.{name}"
    owner = next(each for each in kind.__mro__ if name in vars(each))
    return f"{owner.__name__}.{name}"


def _is_public(name: str) -> bool:
    return name in _BLOCKS or not name.startswith("_")
