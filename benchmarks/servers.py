"""Servers to measure on: one for each job, in a folder that goes with it.

Redis writes to disk before it answers, and so does PostgreSQL, which is as it is shipped. NATS
syncs its files every two minutes, which is its default, or, when asked for, before it answers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from afk.messaging.testing.servers import NATS, Kind, Postgres, Server, ServerMissingError, find


@contextmanager
def server(store: str, folder: str) -> Iterator[str]:
    """The URL of a fresh one."""
    with _made(store, folder) as running:
        yield running.url


def _made(store: str, folder: str) -> Server | Postgres | NATS:
    match store:
        case "redis":
            return Server(_found("redis"), folder, appendfsync="always")
        case "postgres":  # what is None is left as it is shipped
            binaries = _found("postgres18")
            return Postgres(binaries, folder, max_connections=None, shared_buffers=None)
        case "nats":
            return NATS(_found("nats"), folder)
        case "nats_synced":
            return NATS(_found("nats"), folder, sync_interval="always")
    raise ValueError(store)


def _found(kind: Kind) -> Path:
    try:
        return find(kind)
    except ServerMissingError as error:
        sys.exit(str(error))
