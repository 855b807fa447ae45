"""Where the server is: one address, the nodes of a Cluster, or what Sentinels say."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ...errors import ConfigurationError

Address = tuple[str, int]

_KEPT = (
    "db",
    "username",
    "password",
    "credential_provider",
    "client_name",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_keepalive_options",
)
"""Of a client's settings, what a connection of ours takes over; and all that start with `ssl_`."""

CONNECT_SECONDS = 5.0


class Watchers(Struct, frozen=True):
    """The Sentinels of one primary."""

    addresses: tuple[Address, ...]
    service: str
    settings: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"Watchers({self.addresses!r}, {self.service!r})"


class Place:
    """A server's address and how to talk to it; never shows a password.

    addresses: nodes to start from, tried in turn; a node that knows better redirects.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        addresses: Sequence[Address] = (),
        *,
        path: str | None = None,
        tls: bool = False,
        watchers: Watchers | None = None,
    ) -> None:
        verified = {"ssl_check_hostname": settings.get("ssl_cert_reqs") != "none"} if tls else {}
        self._settings = {
            "socket_connect_timeout": CONNECT_SECONDS,
            **verified,
            **settings,
            "socket_timeout": None,  # the link has its own patience
            "protocol": 2,
        }
        self._addresses = list(addresses)
        self._path = path
        self._tls = tls
        self._watchers = watchers
        self._redirect: Address | None = None
        self._tries = 0
        self.shown = self._where()

    def _where(self) -> str:
        if self._path is not None:
            return f"Redis at {self._path}"
        if self._watchers is not None:
            return (
                f"Redis {self._watchers.service!r} (Sentinels {_listed(self._watchers.addresses)})"
            )
        return f"Redis at {_listed(self._addresses)}"

    def __repr__(self) -> str:
        return f"<{self.shown}>"

    def redirect(self, address: Address | None) -> None:
        """Where to connect next, once."""
        self._redirect = address

    async def connect(self) -> AbstractConnection:
        """A connection to the server, authenticated."""
        connection = await self._made()
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            _heed_cancellation()  # redis-py can swallow one while it connects
        except BaseException:
            await leave(connection)
            raise
        return connection

    async def _made(self) -> AbstractConnection:
        if self._path is not None:
            return UnixDomainSocketConnection(path=self._path, **self._settings)
        host, port = await self._address()
        kind = SSLConnection if self._tls else Connection
        return kind(host=host, port=port, **self._settings)

    async def _address(self) -> Address:
        if self._redirect is not None:
            address, self._redirect = self._redirect, None
            return address
        if self._watchers is not None:
            return await _primary(self._watchers)
        self._tries += 1
        return self._addresses[(self._tries - 1) % len(self._addresses)]


async def _primary(watchers: Watchers) -> Address:
    settings = {
        "socket_timeout": 1.0,
        "socket_connect_timeout": 1.0,
        "retry": Retry(NoBackoff(), 0),
        **watchers.settings,
    }
    sentinel = Sentinel(list(watchers.addresses), sentinel_kwargs=settings)  # type: ignore[no-untyped-call]
    try:
        host, port = await sentinel.discover_master(watchers.service)
    finally:
        for client in sentinel.sentinels:
            await client.aclose()
    _heed_cancellation()
    return host, int(port)


def _heed_cancellation() -> None:
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def leave(connection: AbstractConnection) -> None:
    """Let go of a connection, its socket too: TLS takes leave of the other side first."""
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            await connection.disconnect()


def _listed(addresses: Sequence[Address]) -> str:
    return ", ".join(f"{host}:{port}" for host, port in addresses)


def place_of(client: Any) -> Place:
    """The place a client of redis-py, sync or async, is set to; the client itself is not used."""
    nodes = getattr(client, "nodes_manager", None)
    if nodes is not None:
        addresses = [(node.host, int(node.port)) for node in nodes.startup_nodes.values()]
        kwargs = nodes.connection_kwargs
        return Place(_kept(kwargs), addresses, tls=_is_tls(kwargs, None))
    pool = getattr(client, "connection_pool", None)
    if pool is None:
        raise ConfigurationError(
            f"client: a redis.asyncio.Redis or redis.Redis is needed, not {type(client).__name__}"
        )
    kwargs = pool.connection_kwargs
    tls = _is_tls(kwargs, getattr(pool, "connection_class", None))
    manager = getattr(pool, "sentinel_manager", None)
    if manager is not None:
        return Place(_kept(kwargs), tls=tls, watchers=_watchers(manager, pool.service_name))
    if "path" in kwargs:
        return Place(_kept(kwargs), path=kwargs["path"])
    address = (kwargs.get("host", "localhost"), int(kwargs.get("port", 6379)))
    return Place(_kept(kwargs), [address], tls=tls)


def _kept(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in kwargs.items()
        if value is not None and (name in _KEPT or name.startswith("ssl_"))
    }


def _is_tls(kwargs: dict[str, Any], kind: type | None) -> bool:
    if kind is not None:
        return "SSL" in kind.__name__
    return bool(kwargs.get("ssl")) or any(name.startswith("ssl_") for name in kwargs)


def _watchers(manager: Any, service: str) -> Watchers:
    pools = [sentinel.connection_pool for sentinel in manager.sentinels]
    addresses = tuple(
        (pool.connection_kwargs["host"], int(pool.connection_kwargs["port"])) for pool in pools
    )
    settings = _kept(pools[0].connection_kwargs)
    if _is_tls({}, pools[0].connection_class):
        settings["ssl"] = True
    return Watchers(addresses, service, settings)
