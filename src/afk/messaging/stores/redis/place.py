"""Where the server is: one address, the nodes of a Cluster, or what Sentinels say."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Sequence
from copy import copy
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import RedisError

from ...errors import ConfigurationError
from .sentinels import Address, Watchers

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
        self._last: Address | None = None
        self._current: Address | None = None
        self._tried = 0
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

    @property
    def watchers(self) -> Watchers | None:
        """The Sentinels to ask, if any."""
        return self._watchers

    @property
    def current(self) -> Address | None:
        """The server that was settled on."""
        return self._current

    @property
    def tries(self) -> int:
        """How many addresses there are to try."""
        return max(1, len(self._addresses))

    def redirect(self, address: Address) -> None:
        """Where to connect next. Of a cluster, it is a node to start from from now on."""
        self._redirect = address
        if self._watchers is None and address not in self._addresses:
            self._addresses.append(address)

    def settled(self) -> bool:
        """The last connection is the one to follow; False if it was redirected meanwhile."""
        if self._redirect not in (None, self._last):
            return False
        self._current = self._last
        return True

    def own(self) -> Place:
        """The same for another thread, beginning where this one is."""
        mine = copy(self)
        mine._addresses = list(self._addresses)
        mine._redirect = self._current
        return mine

    async def connect(self) -> AbstractConnection:
        """A connection to the server, authenticated."""
        self._last = None if self._path is not None else await self._address()
        return await self._connected(self._last)

    async def follow(self) -> AbstractConnection:
        """Another connection to the server that was settled on."""
        address = self._current
        if self._path is None and address is None:
            address = await self._address()
        return await self._connected(address)

    async def _connected(self, address: Address | None) -> AbstractConnection:
        connection = self._made(address)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            _heed_cancellation()  # redis-py can swallow one while it connects
        except BaseException:
            await leave(connection)
            raise
        return connection

    def _made(self, address: Address | None) -> AbstractConnection:
        if address is None:
            return UnixDomainSocketConnection(path=self._path or "", **self._settings)
        kind = SSLConnection if self._tls else Connection
        return kind(host=address[0], port=address[1], **self._settings)

    async def _address(self) -> Address:
        address, self._redirect = self._redirect, None
        if address is not None:
            return address
        if self._watchers is not None:
            address = await self._watchers.primary()
            _heed_cancellation()
            return address
        self._tried += 1
        return self._addresses[(self._tried - 1) % len(self._addresses)]


def _heed_cancellation() -> None:
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def leave(connection: AbstractConnection) -> None:
    """Let go of a connection, its socket too: TLS takes leave of the other side first."""
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            await connection.disconnect()


def drop(connection: AbstractConnection) -> None:
    """Let go at once: what it has sent and nobody took is not to arrive later."""
    writer = connection._writer
    if writer is None:
        return
    socket = writer.get_extra_info("socket")
    if socket is not None:
        with contextlib.suppress(OSError):
            socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


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
