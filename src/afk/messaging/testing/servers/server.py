"""A server of Redis's kind."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, BinaryIO

from .process import HOST, Daemon, Option, launch
from .resp import ask, fields

_DEFAULTS: dict[str, Option] = {
    "bind": HOST,
    "protected-mode": "no",
    "daemonize": "no",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "everysec",
}


class Server(Daemon):
    """Redis or Valkey.

    options: settings by their names, `_` for `-`: `appendfsync="always"`, `replicaof=(host, port)`.
    flags: what goes to the program as it is.
    """

    def __init__(
        self,
        binary: str | Path,
        folder: str | Path,
        *flags: str,
        **options: Option,
    ) -> None:
        self._flags = flags
        self._options = {name.replace("_", "-"): value for name, value in options.items()}
        super().__init__(binary, folder, self._options.pop("port", None))
        self._configured: int | None = None  # for this port

    @property
    def url(self) -> str:
        """Where it is, without a password."""
        return f"redis://{self.host}:{self.port}"

    def call(self, *args: str | int, timeout: float = 5.0) -> Any:
        """The answer to one command, as `ask` gives it; with the password of the options."""
        secret = self._options.get("requirepass")
        password = None if secret is None else str(secret)
        return ask(self.host, self.port, *args, password=password, timeout=timeout)

    def info(self) -> dict[str, str]:
        """What INFO says."""
        return fields(self.call("INFO"))

    def _launch(self, log: BinaryIO) -> subprocess.Popen[bytes]:
        self._repair(log)
        config = self.folder / "server.conf"
        if self._configured != self.port:  # later it is the server's: it may have rewritten it
            config.write_text(self._config())
            self._configured = self.port
        return launch([self.binary, config, *self._flags], log)

    def _repair(self, log: BinaryIO) -> None:
        """Cut off a transaction that a crash left half written. The server itself cuts off less of
        it, and half of it would take effect when it is started once more (docs/stores/redis.md)."""
        manifest = self.folder / "appendonlydir" / "appendonly.aof.manifest"
        if manifest.exists():
            checker = self.binary.name.replace("-server", "-check-aof")  # the same program
            subprocess.run(  # noqa: S603 - the caller's own program
                [checker, "--fix", manifest],
                executable=self.binary,
                input=b"y\n",
                stdout=log,
                stderr=log,
                check=False,
            )

    def _config(self) -> str:
        settings = _DEFAULTS | {"port": self.port, "dir": str(self.folder.resolve())}
        lines = [_line(*setting) for setting in (settings | self._options).items()]
        return "".join(lines)

    def _answers(self) -> bool:
        info = self.info()
        return info["process_id"] == str(self.pid) and info.get("loading", "0") == "0"


def _line(name: str, value: Option) -> str:
    if value is None:
        return ""
    words = value if isinstance(value, tuple) else (value,)
    return " ".join([name, *map(_quoted, words)]) + "\n"


def _quoted(word: str | int) -> str:
    return '"' + str(word).replace("\\", "\\\\").replace('"', '\\"') + '"'
