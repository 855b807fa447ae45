"""One server process."""

from __future__ import annotations

import atexit
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeAlias

from .resp import CommandError, ask, fields

HOST = "127.0.0.1"
PATIENCE = 10.0
"""Seconds a server has to get ready."""

Option: TypeAlias = str | int | tuple[str | int, ...] | None
"""The value of a setting, or its words; None leaves out what is set by default."""

_PORTS = range(15_000, 22_000)
_DEFAULTS: dict[str, Option] = {
    "bind": HOST,
    "protected-mode": "no",
    "daemonize": "no",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "everysec",
}


class ServerError(RuntimeError):
    """A server did not do what it was started for; the text ends with what it logged."""


def free_port() -> int:
    """A port that nothing listens on, and with 10000 added neither: nodes of a cluster need both.

    Both lie below the ports that systems give to outgoing connections, so none of those takes
    the port of a server that is down for a moment.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        with suppress(OSError):
            socket.create_server((HOST, port)).close()
            socket.create_server((HOST, port + 10_000)).close()
            return port
    raise ServerError("no port is free")


def until(condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
    """Wait until the condition holds. No answer, or a refusal, means not yet."""
    end = time.monotonic() + timeout
    while True:
        with suppress(OSError, CommandError):
            if condition():
                return
        if time.monotonic() > end:
            raise ServerError(f"not within {timeout:g} s: {what}")
        time.sleep(0.01)


class Server:
    """A server on a free port, with its data, its settings and its log in a folder of its own.

    options: settings by their names, `_` for `-`: `appendfsync="always"`, `replicaof=(host, port)`.
    flags: what goes to the program as it is. Without the option `port` it has one that is free,
    for good once it has started.

    The data stay in the folder: whoever comes after it there finds them.
    """

    host = HOST

    def __init__(
        self,
        binary: str | Path,
        folder: str | Path,
        *flags: str,
        **options: Option,
    ) -> None:
        self.binary = Path(binary)
        self.folder = Path(folder)
        self._flags = flags
        self._options = {name.replace("_", "-"): value for name, value in options.items()}
        given = self._options.pop("port", None)
        self.port = free_port() if given is None else int(str(given))
        self._settled = given is not None  # the port is no longer a matter of choice
        self._configured = False
        self._process: subprocess.Popen[bytes] | None = None
        self._logged = 0  # the bytes of the log that are not of this run

    @property
    def url(self) -> str:
        """Where it is, without a password."""
        return f"redis://{self.host}:{self.port}"

    @property
    def log(self) -> Path:
        """What it has printed, over all its runs."""
        return self.folder / "server.log"

    @property
    def running(self) -> bool:
        """Whether the process lives; a paused one does."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process; another after each start."""
        return self._running().pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, timeout: float = PATIENCE) -> None:
        """Run, and return when commands are answered. After the first time, on the same port."""
        if self.running:
            raise ServerError(f"{self} is running already")
        try:
            self._spawn()
            until(self._ready, f"{self} answers", timeout)
        except BaseException as error:
            self.kill()
            if isinstance(error, ServerError):
                raise ServerError(f"{error}\n{self._tail()}") from None
            raise
        self._settled = True

    def stop(self, timeout: float = 5.0) -> None:
        """End it as its own shutdown does; by force if that takes longer than `timeout` s."""
        if self.running:
            self._signal(signal.SIGTERM)
            self.resume()
            with suppress(subprocess.TimeoutExpired):
                self._running().wait(timeout)
        self.kill()

    def kill(self) -> None:
        """End it at once, as a crash does (SIGKILL)."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        atexit.unregister(self.kill)

    def restart(self, *, kill: bool = False) -> None:
        """End it, cleanly or by `kill`, and start it on the same port with what it kept."""
        self.kill() if kill else self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: connections stay open, and nothing is answered (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._signal(signal.SIGCONT)

    def call(self, *args: str | int, timeout: float = 5.0) -> Any:
        """The answer to one command, as `ask` gives it; with the password of the options."""
        secret = self._options.get("requirepass")
        password = None if secret is None else str(secret)
        return ask(self.host, self.port, *args, password=password, timeout=timeout)

    def info(self) -> dict[str, str]:
        """What INFO says."""
        return fields(self.call("INFO"))

    def __repr__(self) -> str:
        return f"{self.binary.name} on port {self.port}"

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerError(f"{self} is not running")
        return self._process

    def _signal(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    def _spawn(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "server.conf"
        if not self._configured:  # later it is the server's: it may have rewritten it
            config.write_text(self._config())
            self._configured = True
        self._logged = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the caller's own program
                [self.binary, config, *self._flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C in a terminal is for the parent alone
            )
        atexit.register(self.kill)

    def _config(self) -> str:
        settings = _DEFAULTS | {"port": self.port, "dir": str(self.folder.resolve())}
        lines = [_line(*setting) for setting in (settings | self._options).items()]
        return "".join(lines)

    def _ready(self) -> bool:
        if not self.running:
            if self._settled or "Address already in use" not in self._tail():
                raise ServerError(f"{self} ended early")
            self.port, self._configured = free_port(), False
            self._spawn()
        info = self.info()  # another's server may have taken the port, hence its process
        return info["process_id"] == str(self.pid) and info.get("loading", "0") == "0"

    def _tail(self) -> str:
        if not self.log.exists():
            return ""
        text = self.log.read_bytes()[self._logged :].decode(errors="replace")
        return "\n".join(text.splitlines()[-20:])


def _line(name: str, value: Option) -> str:
    if value is None:
        return ""
    words = value if isinstance(value, tuple) else (value,)
    return " ".join([name, *map(_quoted, words)]) + "\n"


def _quoted(word: str | int) -> str:
    return '"' + str(word).replace("\\", "\\\\").replace('"', '\\"') + '"'
