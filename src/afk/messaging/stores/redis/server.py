"""What a server is, asked on every new connection: its version, its role, what it keeps."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from ...errors import ConfigurationError
from ...store import Durability
from ..terms import STRENGTH
from . import scripts

SCHEMA: Final = "2"
OLDEST: Final = (6, 2)


class Server(Struct, frozen=True, kw_only=True):
    """A server as it answered. durability: what it gives, None where it does not say."""

    epoch: str
    durability: Durability | None
    least: Durability
    """The weakest that what it said does not exclude."""


async def greet(connection: AbstractConnection, prefix: str, epoch: str) -> Server:
    """Check that the server can be relied on, load the scripts, enter the namespace.

    epoch: for the namespace, if it is new; '' if it must not be. ConfigurationError names what to
    change.
    """
    info = _info(await _try(connection, "INFO"))
    _check_version(info)
    if info.get("role") == "slave":
        raise ReadOnlyError("the server is a replica")
    policy = await _setting(connection, "maxmemory-policy") or info.get("maxmemory_policy")
    if policy is not None and policy != "noeviction":
        raise ConfigurationError(
            f"the server may evict mail (maxmemory-policy {policy}); change it with"
            " CONFIG SET maxmemory-policy noeviction"
        )
    for name in scripts.NAMES:
        await _ask(connection, "SCRIPT", "LOAD", scripts.source(name))
    found, version = await _ask(
        connection, "EVAL", scripts.source("enter"), 1, prefix, epoch, SCHEMA
    )
    if version is not None and version.decode() != SCHEMA:
        raise ConfigurationError(
            f"the mail at {prefix} is of schema {version.decode()}, and this package knows"
            f" {SCHEMA}; use the package that wrote it"
        )
    given, least = await _durability(connection, info)
    return Server(epoch=(found or b"").decode(), durability=given, least=least)


def _check_version(info: dict[str, str]) -> None:
    version = info.get("redis_version")
    if version is not None and tuple(map(int, version.split(".")[:2])) < OLDEST:
        raise ConfigurationError(f"Redis {version} is too old; 6.2 or newer is needed")


async def _durability(
    connection: AbstractConnection, info: dict[str, str]
) -> tuple[Durability | None, Durability]:
    """What the append-only file gives; and the weakest not excluded, where that is not known."""
    on = await _setting(connection, "appendonly") or _AOF.get(info.get("aof_enabled", ""))
    if on == "no":
        return "memory", "memory"
    fsync = await _setting(connection, "appendfsync")
    if on == "yes" and fsync is not None:
        given: Durability = "disk" if fsync == "always" else "process"
        return given, given
    return None, "process" if on == "yes" else "memory"


_AOF = {"0": "no", "1": "yes"}


def promised(server: Server, wanted: Durability | None) -> tuple[Durability, bool]:
    """The durability to promise, and whether it is the caller's word alone.

    ConfigurationError if more is wanted than the server gives.
    """
    if wanted is None:
        return server.durability or server.least, False
    given = server.durability
    if given is not None and STRENGTH.index(wanted) > STRENGTH.index(given):
        raise ConfigurationError(
            f"durability: the server gives {given!r}, not {wanted!r}; change it with"
            f" {_CURE[wanted]}"
        )
    asserted = given is None and STRENGTH.index(wanted) > STRENGTH.index(server.least)
    return wanted, asserted


_CURE: dict[Durability, str] = {
    "process": "CONFIG SET appendonly yes",
    "disk": "CONFIG SET appendonly yes and CONFIG SET appendfsync always",
}


async def _setting(connection: AbstractConnection, name: str) -> str | None:
    answer = await _try(connection, "CONFIG", "GET", name)
    if isinstance(answer, list) and len(answer) == 2:
        value: str = answer[1].decode()
        return value
    return None


def _info(answer: Any) -> dict[str, str]:
    if not isinstance(answer, bytes):
        return {}
    lines = (line.partition(":") for line in answer.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


async def _ask(connection: AbstractConnection, *args: Any) -> Any:
    await connection.send_command(*args, check_health=False)
    return await connection.read_response()


async def _try(connection: AbstractConnection, *args: Any) -> Any:
    """The answer; None where the command is closed to this user."""
    try:
        return await _ask(connection, *args)
    except ResponseError as error:
        if _closed(error):
            return None
        raise


def _closed(error: RedisError) -> bool:
    text = f"{type(error).__name__} {error}".lower()
    return "permission" in text or "noperm" in text or "unknown" in text
