"""One server process."""

from __future__ import annotations

import atexit
import os
import random
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self, TypeAlias

from .resp import CommandError

HOST = "127.0.0.1"
PATIENCE = 30.0
"""Seconds a server has to get ready."""

Option: TypeAlias = str | int | tuple[str | int, ...] | None
"""The value of a setting, or its words; None leaves out what is set by default."""

FAR = 10_000
"""So much higher is a second port that comes with each."""

_PORTS = range(15_000, 22_000)


class ServerError(RuntimeError):
    """A server did not do what it was started for; the text ends with what it logged."""


def free_port() -> int:
    """A port that nothing listens on, and with 10000 added neither: some servers need both.

    Both lie below the ports that systems give to outgoing connections, so none of those takes
    the port of a server that is down for a moment.
    """
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many of them, all different."""
    shuffled = random.sample(_PORTS, len(_PORTS))
    free = list(islice(filter(_free, shuffled), count))
    if len(free) < count:
        raise ServerError("no port is free")
    return free


def _free(port: int) -> bool:
    with suppress(OSError):
        socket.create_server((HOST, port)).close()
        socket.create_server((HOST, port + FAR)).close()
        return True
    return False


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


def launch(command: Sequence[str | Path], log: BinaryIO, **terms: Any) -> subprocess.Popen[bytes]:
    """Run a server. terms: what else subprocess has to know."""
    return subprocess.Popen(  # noqa: S603 - the caller's own program
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        process_group=0,  # Ctrl-C in a terminal is for the parent alone
        **terms,
    )


class Daemon(ABC):
    """A server on a free port, with its data, its settings and its log in a folder of its own.

    Without a given port it has one that is free, for good once it has started. The data stay in
    the folder: whoever comes after it there finds them.
    """

    host = HOST

    _goodbye: ClassVar = signal.SIGTERM
    """What makes it end in order."""

    def __init__(self, binary: str | Path, folder: str | Path, port: Option = None) -> None:
        self.binary = Path(binary)
        self.folder = Path(folder)
        self.port = free_port() if port is None else int(str(port))
        self._settled = port is not None  # the port is no longer a matter of choice
        self._process: subprocess.Popen[bytes] | None = None
        self._logged = 0  # the bytes of the log that are not of this run

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it is, without a password."""

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
        """Run, and return when it answers. After the first time, on the same port."""
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
            self._signal(self._goodbye)
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
        atexit.unregister(self.stop)

    def restart(self, *, kill: bool = False) -> None:
        """End it, cleanly or by `kill`, and start it on the same port with what it kept."""
        self.kill() if kill else self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: connections stay open, and nothing is answered (SIGSTOP)."""
        self._signal(signal.SIGSTOP)
        if self._process is not None:  # all its threads stand still a moment later
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._signal(signal.SIGCONT)

    def __repr__(self) -> str:
        return f"{self.binary.name} on port {self.port}"

    @abstractmethod
    def _launch(self, log: BinaryIO) -> subprocess.Popen[bytes]:
        """Write what the program reads, and run it."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether this process, and not another's on its port, is at work."""

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerError(f"{self} is not running")
        return self._process

    def _signal(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    def _spawn(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._logged = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = self._launch(log)
        atexit.register(self.stop)

    def _ready(self) -> bool:
        if not self.running:
            if self._settled or "address already in use" not in self._tail().lower():
                raise ServerError(f"{self} ended early")
            self.port = free_port()
            self._spawn()
        return self._answers()

    def _tail(self) -> str:
        if not self.log.exists():
            return ""
        text = self.log.read_bytes()[self._logged :].decode(errors="replace")
        return "\n".join(text.splitlines()[-20:])
