"""What a server is set to, and how much it can be trusted with."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from ...errors import ConfigurationError
from ...store import Durability
from ..terms import STRENGTH

OLDEST = 140000


class Server(Struct, frozen=True):
    """A server's settings, as a session of this user has them."""

    version: int
    encoding: str
    takes_writes: bool
    fsync: bool
    waits: bool
    """A commit is answered once it is written (synchronous_commit)."""
    full_pages: bool
    pooled: bool
    """A connection pooler stands between."""


async def ask(connection: Any) -> Server:
    """The settings of the server at the other end. In a transaction."""
    row = await connection.fetchrow(
        "SELECT current_setting('server_version_num')::int AS version,"
        " current_setting('server_encoding') AS encoding, current_setting('fsync') AS fsync,"
        " current_setting('synchronous_commit') AS commit,"
        " current_setting('full_page_writes') AS full_pages,"
        " current_setting('transaction_read_only') AS read_only, pg_is_in_recovery() AS standby,"
        " pg_backend_pid() AS pid"
    )
    return Server(
        version=row["version"],
        encoding=row["encoding"],
        takes_writes=row["read_only"] == "off" and not row["standby"],
        fsync=row["fsync"] == "on",
        waits=row["commit"] != "off",
        full_pages=row["full_pages"] == "on",
        # A pooler gives its clients numbers of its own.
        pooled=row["pid"] != connection.get_server_pid(),
    )


def check(server: Server) -> None:
    """ConfigurationError if it cannot be used."""
    if server.version < OLDEST:
        raise ConfigurationError(
            f"PostgreSQL {server.version // 10000} is too old; 14 or newer is needed"
        )
    if server.encoding != "UTF8":
        raise ConfigurationError(
            f"the database's encoding is {server.encoding}; create it with ENCODING 'UTF8'"
        )


def promised(server: Server, wanted: Durability | None) -> tuple[Durability, bool]:
    """The durability to promise, and whether it is the caller's word alone.

    Without full_page_writes a page half written at a power loss is lost, unless the filesystem
    cannot tear a page: the caller may know. ConfigurationError if more is wanted than is given.
    """
    given: Durability = "memory" if not server.waits else "process" if not server.fsync else "disk"
    least: Durability = "process" if given == "disk" and not server.full_pages else given
    if wanted is None:
        return least, False
    if STRENGTH.index(wanted) > STRENGTH.index(given):
        cure = "synchronous_commit = on" if not server.waits else "fsync = on"
        raise ConfigurationError(
            f"durability: the server gives {given!r}, not {wanted!r}; set {cure}"
        )
    return wanted, STRENGTH.index(wanted) > STRENGTH.index(least)
