"""A Redis or Valkey server: what it keeps, what it would throw away, its memory, its clock."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from redis.exceptions import RedisError

from afk.messaging import StoreError
from afk.messaging.connect import REDIS_CONNECTION
from afk.messaging.edges.doctor.finding import Finding, bad, clock, good, warning
from afk.messaging.stores.redis.place import leave
from afk.messaging.stores.redis.url import place_at

FULL = 0.8


async def look(url: str, options: Mapping[str, str]) -> AsyncIterator[Finding]:
    """What the server tells; of a cluster, the node that is asked first."""
    own = {name: value for name, value in options.items() if name in REDIS_CONNECTION}
    try:
        connection = await place_at(url.partition("?")[0], own).connect()
    except RedisError as error:
        raise StoreError(str(error)) from error

    async def ask(*words: str) -> Any:
        await connection.send_command(*words)
        return await connection.read_response()

    try:
        before = time.time()
        seconds, micros = await ask("TIME")
        yield clock(int(seconds) + int(micros) / 1e6 - (before + time.time()) / 2)
        for finding in _told(_read(await ask("INFO"))):
            yield finding
    finally:
        await leave(connection)


def _read(text: bytes | str) -> dict[str, str]:
    lines = (text.decode() if isinstance(text, bytes) else text).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _told(info: Mapping[str, str]) -> Iterator[Finding]:
    yield good(f"server {info.get('valkey_version') or info.get('redis_version')}")
    if info.get("aof_enabled") == "0":
        yield bad(
            "there is no append-only file: a restart loses everything",
            "CONFIG SET appendonly yes, and in the server's file",
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        yield bad("the last write to the append-only file failed", "look at the server's disk")
    if info.get("maxmemory_policy", "noeviction") != "noeviction":
        yield bad(
            f"maxmemory-policy is {info['maxmemory_policy']}: it may throw messages away",
            "CONFIG SET maxmemory-policy noeviction",
        )
    most, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if most and used > FULL * most:
        yield warning(
            f"{used / most:.0%} of its memory is used; when it is full, sends fail",
            "raise maxmemory, or lower history and retention",
        )
    elif not most:
        yield warning(
            f"maxmemory is not set; {used / 1e6:.0f} MB are used",
            "set it below the machine's memory, so that sends fail and not the server",
        )
    if info.get("role") == "slave":
        yield bad("this is a replica", "use the primary's address, or redis+sentinel://")
