"""A PostgreSQL server."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from .family import children, doomed, tell
from .lodging import lodging, reachable
from .process import HOST, Daemon, Option, ServerError, launch
from .resp import CommandError

_DEFAULTS: dict[str, Option] = {
    "listen_addresses": HOST,
    "unix_socket_directories": ".",  # where the data are
    "max_connections": 400,
    "shared_buffers": "32MB",
}
_INITDB = (
    "--username=postgres",
    "--auth=trust",
    "--encoding=UTF8",
    "--no-locale",
    "--no-sync",
    "--no-instructions",
)


class Postgres(Daemon):
    """PostgreSQL with the user and the database `postgres`, and no passwords.

    binaries: the folder with `initdb`, `postgres` and `psql`.
    settings: by their names, `synchronous_commit="off"`; what is committed is on disk by default.
    As root, it runs as the system's user `postgres`, else as `nobody`: it refuses to be root.
    """

    _goodbye = signal.SIGINT  # does not wait until all clients have left

    def __init__(self, binaries: str | Path, folder: str | Path, **settings: Option) -> None:
        program = reachable(Path(binaries)) / "postgres"
        super().__init__(program, folder, settings.pop("port", None))
        self.data = self.folder / "data"
        """Where the data are, and the Unix socket."""
        self._settings = _DEFAULTS | settings

    @property
    def url(self) -> str:
        """Where it is."""
        return f"postgresql://postgres@{self.host}:{self.port}/postgres"

    @property
    def socket_url(self) -> str:
        """The same by its Unix socket; for those who may read the folder."""
        place = quote(str(self.data.absolute()), safe="")
        return f"postgresql://postgres@/postgres?host={place}&port={self.port}"

    def psql(self, sql: str, *, timeout: float = 10.0) -> str:
        """What psql prints for it: a line a row, `|` between columns.

        Raises CommandError when the server says no or is not there, TimeoutError when it is silent.
        """
        flags = ("-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.url)
        try:
            done = _run(self.binary.with_name("psql"), *flags, "-c", sql, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self} does not answer") from None
        if done.returncode != 0:
            raise CommandError(done.stderr.strip())
        return done.stdout.removesuffix("\n")

    def kill(self) -> None:
        """End it and all its processes at once, as a crash does (SIGKILL)."""
        if not self.running:
            super().kill()
            return
        self._freeze()  # it would mend what we break
        with doomed(children(self.pid)):
            super().kill()

    def pause(self) -> None:
        """Freeze it: connections stay open, and nothing is answered (SIGSTOP)."""
        self._freeze()
        tell(children(self.pid), signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        tell(children(self.pid), signal.SIGCONT)
        super().resume()

    def _freeze(self) -> None:
        """Its first process: from then on there are no more of them."""
        super().pause()
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _launch(self, log: BinaryIO) -> subprocess.Popen[bytes]:
        settings = {"port": self.port, **self._settings}
        flags = [f"--{name}={value}" for name, value in settings.items() if value is not None]
        with lodging(self.data) as (place, terms):
            if not (self.data / "PG_VERSION").exists():
                made = _run(self.binary.with_name("initdb"), *_INITDB, "-D", place, **terms)
                if made.returncode != 0:
                    raise ServerError(f"initdb: {made.stderr.strip()}")
            return launch([self.binary, "-D", place, *flags], log, **terms)

    def _answers(self) -> bool:
        """As pg_ctl finds out."""
        words = (self.data / "postmaster.pid").read_text().split()
        return words[:1] == [str(self.pid)] and words[-1] == "ready"


def _run(*command: str | Path, **terms: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - as `launch`
        command, capture_output=True, encoding="utf-8", check=False, **terms
    )
