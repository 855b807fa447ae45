"""A pool of connections in front of PostgreSQL."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import BinaryIO

from .lodging import lodging
from .postgres import Postgres
from .process import HOST, Daemon, Option, launch


class PgBouncer(Daemon):
    """PgBouncer in front of a server, for all its databases.

    pool_mode: how long a client keeps a connection: `session`, `transaction`, `statement`.
    settings: others by their names, `default_pool_size=5`.
    """

    def __init__(
        self,
        binary: str | Path,
        folder: str | Path,
        postgres: Postgres,
        pool_mode: str = "transaction",
        **settings: Option,
    ) -> None:
        super().__init__(binary, folder, settings.pop("port", None))
        self._behind = postgres
        self._settings: dict[str, Option] = {
            "listen_addr": HOST,
            "unix_socket_dir": "",
            "auth_type": "any",
            "max_client_conn": 1000,
            "pool_mode": pool_mode,
            **settings,
        }

    @property
    def url(self) -> str:
        """Where it is."""
        return f"postgresql://postgres@{self.host}:{self.port}/postgres"

    def stop(self, timeout: float = 5.0) -> None:
        """End it at once: it keeps nothing, and would wait for its clients."""
        self.kill()

    def _launch(self, log: BinaryIO) -> subprocess.Popen[bytes]:
        (self.folder / "pgbouncer.ini").write_text(self._text())
        with lodging(self.folder) as (place, terms):
            return launch([self.binary, f"{place}/pgbouncer.ini"], log, **terms)

    def _text(self) -> str:
        settings = {"listen_port": self.port, **self._settings}
        lines = [f"{name} = {value}" for name, value in settings.items() if value is not None]
        server = f"* = host={self._behind.host} port={self._behind.port} user=postgres"
        return "\n".join(["[databases]", server, "[pgbouncer]", *lines, ""])

    def _answers(self) -> bool:
        return "process up" in self._tail()  # and its port is its own by then
