"""The Lua scripts: each file of `lua/`, behind what all of them share."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

NAMES = ("put", "claim", "renew", "directory", "amend", "look", "counts")


@cache
def source(name: str) -> str:
    """The text that the server runs."""
    return read(name) if name == "enter" else read("common") + read(name)


def read(name: str) -> str:
    """A file of `lua/`."""
    return (files(__package__) / "lua" / f"{name}.lua").read_text("utf-8")


@cache
def digest(name: str) -> str:
    """What the server knows the script by."""
    # SHA-1 is the protocol's; it guards nothing.
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()
