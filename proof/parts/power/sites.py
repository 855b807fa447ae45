"""Where a store lives on the disk, strong or weak: a file, or the data of a server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from afk.messaging.testing.servers import NATS, Postgres, Server

from ...trial import Daemons, Ground


class Site(ABC):
    """A store on the disk. durability: what its buses have to say of themselves.

    weak: set so that what it accepted may be lost, and says so.
    """

    def __init__(self, weak: bool) -> None:
        self.weak = weak
        self.durability = "process" if weak else "disk"

    @abstractmethod
    def url(self, number: int) -> str:
        """A namespace of its own for each number."""

    @abstractmethod
    def start(self) -> None:
        """Have it serve, with what it finds on the disk."""

    @abstractmethod
    def kill(self) -> None:
        """End it without a chance to write anything."""


class File(Site):
    """SQLite; every few numbers begin a new file."""

    SHARE = 4

    def __init__(self, folder: Path, weak: bool) -> None:
        super().__init__(weak)
        self._folder = folder

    def file(self, number: int) -> Path:
        """The database."""
        return self._folder / f"mail-{number // self.SHARE}.db"

    def url(self, number: int) -> str:
        """Its durability is the client's choice."""
        return f"sqlite:///{self.file(number)}?namespace=n{number}&durability={self.durability}"

    def start(self) -> None:
        """Its clients are all there is of it."""

    def kill(self) -> None:
        """Likewise."""


class Served(Site):
    """A server that has all its data on the disk."""

    def __init__(self, server: Daemons, weak: bool, options: str = "") -> None:
        super().__init__(weak)
        self._server = server
        self._options = options

    def url(self, number: int) -> str:
        """Of the server."""
        return f"{self._server.url}?namespace=n{number}{self._options}"

    def start(self) -> None:
        """Run it."""
        self._server.start()

    def kill(self) -> None:
        """End all its processes."""
        self._server.kill()


def site(ground: Ground, folder: Path, weak: bool) -> Site:
    """The store of this ground, in a folder of the disk. weak: set as it comes, or as many do."""
    if ground.server is None:
        return File(folder, weak)
    binary, place = ground.server.binary, folder / "server"
    match ground.store:
        case "redis":
            policy = "everysec" if weak else "always"
            return Served(Server(binary, place, appendfsync=policy), weak)
        case "postgres":
            commit = "off" if weak else "on"
            served = Served(Postgres(binary.parent, place, synchronous_commit=commit), weak)
            if weak:  # kill -9 of the server loses what it had not yet given to the system
                served.durability = "memory"
            return served
        case "nats" if weak:
            return Served(NATS(binary, place), weak)
        case "nats":  # it does not tell its clients how it is set
            server = NATS(binary, place, sync_interval="always")
            return Served(server, weak, "&durability=disk")
    raise ValueError(f"no such store: {ground.store!r}")
