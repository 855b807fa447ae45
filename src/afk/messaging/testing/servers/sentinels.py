"""A master with replicas, and the sentinels that watch it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from .group import Group, first_answer
from .process import HOST, Option, until
from .resp import pairs
from .server import Server

WATCHERS = 3


class Sentinels(Group):
    """A master, its replicas, and three sentinels, two of which agree on a failover.

    down_after: ms of silence after which a sentinel takes a server for dead.
    options: settings for the master and the replicas, as `Server` takes them.
    """

    service = "mymaster"

    def __init__(
        self,
        binary: str | Path,
        folder: str | Path,
        *,
        replicas: int = 1,
        down_after: int = 500,
        **options: Option,
    ) -> None:
        self._binary = binary
        self._folder = Path(folder)
        self._replicas = replicas
        self._down_after = down_after
        self._options: dict[str, Option] = {"repl_diskless_sync_delay": 0, **options}
        self._secret = options.get("requirepass")
        if self._secret is not None:
            self._options = {"masterauth": self._secret, **self._options}
        self.servers: list[Server] = []
        """The master and the replicas, whichever is which by now."""
        self.watchers: list[Server] = []
        """The processes of the sentinels."""

    @property
    def sentinels(self) -> list[tuple[str, int]]:
        """Where the sentinels listen."""
        return [(watcher.host, watcher.port) for watcher in self.watchers]

    def master(self) -> Server:
        """The master, as the first sentinel that answers has it."""
        return self._named(self.watchers)

    def replicas(self) -> list[Server]:
        """The servers that are not the master, dead ones too."""
        master = self.master()
        return [server for server in self.servers if server is not master]

    def until_moved(self, old: Server, timeout: float = 15.0) -> Server:
        """Wait until all sentinels name another master than `old`, and it is one; returns it."""
        until(lambda: self._moved(old), f"another master than {old}", timeout)
        return self.master()

    def _members(self) -> list[Server]:
        return [*self.watchers, *self.servers]

    def _form(self) -> None:
        master = self._started("server-1")
        for number in range(self._replicas):
            self._started(f"server-{number + 2}", replicaof=(HOST, master.port))
        for replica in self.servers[1:]:
            until(partial(_follows, replica), f"{replica} follows")
        for number in range(WATCHERS):
            self._watch(f"sentinel-{number + 1}", master)
        until(lambda: all(map(self._sees_all, self.watchers)), "sentinels see all", 20.0)

    def _started(self, name: str, **options: Option) -> Server:
        server = Server(self._binary, self._folder / name, **(self._options | options))
        self.servers.append(server)
        server.start()
        return server

    def _watch(self, name: str, master: Server) -> None:
        about: dict[str, tuple[str | int, ...]] = {
            "monitor": (master.host, master.port, WATCHERS // 2 + 1),
            "down-after-milliseconds": (self._down_after,),
            "failover-timeout": (3000,),
            "parallel-syncs": (1,),
        }
        if self._secret is not None:
            about["auth-pass"] = (str(self._secret),)
        options: dict[str, Option] = {
            f"sentinel {key}": (self.service, *values) for key, values in about.items()
        }
        options |= dict.fromkeys(("save", "appendonly", "appendfsync"))  # it keeps no data
        watcher = Server(self._binary, self._folder / name, "--sentinel", **options)
        self.watchers.append(watcher)
        watcher.start()

    def _named(self, watchers: list[Server]) -> Server:
        query = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        _, port = first_answer(watchers, *query)
        return next(server for server in self.servers if server.port == int(port))

    def _sees_all(self, watcher: Server) -> bool:
        seen = pairs(watcher.call("SENTINEL", "MASTER", self.service))
        others = seen["num-other-sentinels"] == str(WATCHERS - 1)
        return others and seen["num-slaves"] == str(self._replicas) and seen["flags"] == "master"

    def _moved(self, old: Server) -> bool:
        named = {self._named([watcher]) for watcher in self.watchers if watcher.running}
        if len(named) != 1 or old in named:
            return False
        return bool(named.pop().call("ROLE")[0] == "master")


def _follows(replica: Server) -> bool:
    return replica.info()["master_link_status"] == "up"
