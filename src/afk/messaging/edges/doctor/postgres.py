"""A PostgreSQL database: its settings, who blocks it, how much is dead in it, its clock."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import asyncpg

from afk.messaging import StoreError
from afk.messaging.connect import POSTGRES_CONNECTION
from afk.messaging.edges.doctor.finding import Finding, bad, clock, good, warning
from afk.messaging.stores.postgres.place import place_of

IDLE = 60.0
"""Seconds a transaction may be open with nothing going on in it."""
MUCH = 10
"""So many dead rows for each live one, when there are more than a few."""

_SETTINGS = """
SELECT extract(epoch FROM clock_timestamp())::float8 AS now, version() AS version,
       current_setting('autovacuum') AS autovacuum, current_setting('fsync') AS fsync,
       current_setting('synchronous_commit') AS commit,
       current_setting('full_page_writes') AS pages, pg_is_in_recovery() AS standby
"""
_OPEN = """
SELECT pid, usename, extract(epoch FROM clock_timestamp() - state_change)::float8 AS seconds
FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'
AND state_change < clock_timestamp() - make_interval(secs => $1)
"""
_ROWS = """
SELECT sum(n_live_tup)::bigint AS live, sum(n_dead_tup)::bigint AS dead,
       sum(pg_total_relation_size(relid))::bigint AS size
FROM pg_stat_user_tables WHERE schemaname = $1
"""


async def look(url: str, options: Mapping[str, str]) -> AsyncIterator[Finding]:
    """What the database tells."""
    own = {name: value for name, value in options.items() if name in POSTGRES_CONNECTION}
    place = place_of(urlsplit(url)._replace(query=urlencode(own)).geturl())
    try:
        connection = await place.connect()
    except asyncpg.PostgresError as error:
        raise StoreError(str(error)) from error
    try:
        before = time.time()
        settings = await connection.fetchrow(_SETTINGS)
        yield clock(settings["now"] - (before + time.time()) / 2)
        for finding in _told(settings):
            yield finding
        for row in await connection.fetch(_OPEN, IDLE):
            yield warning(
                f"session {row['pid']} of {row['usename']} has left a transaction open for"
                f" {row['seconds']:.0f} s; what it touched waits, and nothing is vacuumed",
                f"end it: SELECT pg_terminate_backend({row['pid']})",
            )
        yield _vacuumed(await connection.fetchrow(_ROWS, options.get("schema", "afk")))
    except asyncpg.PostgresError as error:
        raise StoreError(str(error)) from error
    finally:
        await place.leave(connection)
        await place.close()


def _told(settings: Any) -> Iterator[Finding]:
    yield good(settings["version"].partition(" on ")[0])
    if settings["standby"]:
        yield bad("this is a standby", "use the primary's address, or several hosts in the URL")
    for name, key in (
        ("fsync", "fsync"),
        ("synchronous_commit", "commit"),
        ("autovacuum", "autovacuum"),
    ):
        if settings[key] == "off":
            harm = "tables grow for ever" if name == "autovacuum" else "a crash may lose messages"
            yield bad(f"{name} is off: {harm}", f"ALTER SYSTEM SET {name} = on, then reload")
    if settings["pages"] == "off":
        yield warning(
            "full_page_writes is off: a power loss may tear a page",
            "turn it on, unless the filesystem cannot tear one",
        )


def _vacuumed(rows: Any) -> Finding:
    live, dead, size = (rows[name] or 0 for name in ("live", "dead", "size"))
    if dead > 100_000 and dead > MUCH * live:
        return warning(
            f"{dead:,} dead rows for {live:,} live ones, {size / 1e6:.0f} MB",
            "autovacuum does not keep up, or an old transaction holds it back",
        )
    return good(f"{live:,} rows, {dead:,} dead ones, {size / 1e6:.0f} MB")
