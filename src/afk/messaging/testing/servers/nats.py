"""A NATS server with JetStream."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.request
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from .process import FAR, Daemon, Option, launch


class NATS(Daemon):
    """NATS with JetStream, whose streams are files.

    config: what goes into its configuration as it is: `authorization { token: "s3cret" }`.
    jetstream: settings of that block by their names: `sync_interval="always"`.
    """

    def __init__(
        self,
        binary: str | Path,
        folder: str | Path,
        config: str = "",
        *,
        port: int | None = None,
        **jetstream: Option,
    ) -> None:
        super().__init__(binary, folder, port)
        self.config = config
        self._jetstream = jetstream
        place = str(self.folder.absolute())
        self.name = f"{self.folder.name}-{zlib.crc32(place.encode()):08x}"
        """By which others know it; the same for whoever comes after it in the folder."""

    @property
    def url(self) -> str:
        """Where it is, without a password."""
        return f"nats://{self.host}:{self.port}"

    @property
    def monitor_port(self) -> int:
        """Where it tells how it is, by HTTP."""
        return self.port + FAR

    def info(self, timeout: float = 5.0) -> dict[str, Any]:
        """What it says to each client first."""
        with (
            socket.create_connection((self.host, self.port), timeout) as connection,
            connection.makefile("rb") as stream,
        ):
            line = stream.readline()
        return dict(json.loads(line.removeprefix(b"INFO ") or b"{}"))

    def monitor(self, path: str) -> dict[str, Any]:
        """What it says of itself at `varz`, `jsz`, `healthz`...; OSError when it is not well."""
        url = f"http://{self.host}:{self.monitor_port}/{path}"
        with urllib.request.urlopen(url, timeout=5.0) as answer:
            return dict(json.load(answer))

    def _launch(self, log: BinaryIO) -> subprocess.Popen[bytes]:
        file = self.folder / "server.conf"
        file.write_text(self._text())
        return launch([self.binary, "-c", file], log)

    def _text(self) -> str:
        jetstream = {"store_dir": str(self.folder.absolute()), **self._jetstream}
        given = {name: value for name, value in jetstream.items() if value is not None}
        block = ", ".join(f"{name}: {json.dumps(value)}" for name, value in given.items())
        return (
            f"server_name: {json.dumps(self.name)}\n"
            f"listen: {self.host}:{self.port}\n"
            f"http: {self.host}:{self.monitor_port}\n"
            f"jetstream {{ {block} }}\n"
            f"{self.config}\n"
        )

    def _answers(self) -> bool:
        info = self.info(1.0)  # another's server may have taken the port, hence its name
        return info.get("server_name") == self.name and info.get("jetstream", False)
