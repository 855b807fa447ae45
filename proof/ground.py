"""Servers to try, set to keep what they accept through power loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from afk.messaging.testing.servers import NATS, Postgres, Server, find

from .trial import Daemons, Ground


@contextmanager
def ground(store: str) -> Iterator[Ground]:
    """A store and a folder of its own, gone with the block."""
    with TemporaryDirectory(prefix="afk-proof-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if store in {"memory", "sqlite"}:
            yield Ground(store, store, folder)
            return
        with _server(store, folder / "server") as server:
            yield Ground(store, server.url, folder, server)


def _server(store: str, folder: Path) -> Daemons:
    match store:
        case "redis":
            return Server(find("redis"), folder, appendfsync="always")
        case "postgres":
            return Postgres(find("postgres18"), folder)
        case "nats":
            return NATS(find("nats"), folder, sync_interval="always")
    raise ValueError(f"no such store: {store!r}")
