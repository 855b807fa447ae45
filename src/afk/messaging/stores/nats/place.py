"""Where the servers are, and how to get a connection to one of them."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
from collections.abc import Callable
from typing import Any
from urllib.parse import ParseResult

from msgspec import Struct
from nats.aio.client import Client
from nats.errors import Error as NATSError
from nats.errors import NoServersError

from ...errors import ConfigurationError, StoreError
from ...log import log

SECONDS = 2
"""How long one server has to accept a connection, and to answer one question."""
CLOSING_SECONDS = 1.0

_OLDEST = (2, 12)


class UnreachableError(StoreError):
    """No server took the connection."""


class Place(Struct):
    """Servers of one system, and the settings of a connection. shown: without credentials; others:
    of the same system, as the server said that was asked last."""

    servers: list[str]
    options: dict[str, Any]
    shown: str
    others: list[str] = []

    def __repr__(self) -> str:
        return f"Place({self.shown!r})"

    async def connect(self, name: str, lost: Callable[[], None] | None = None) -> Client:
        """A new connection; StoreError or ConfigurationError if there is none.

        It does not mend itself: `lost` is called once it is gone.
        """
        troubles: list[str] = []
        # One by one: the client itself gives up when a server takes a connection and is silent.
        servers = list(dict.fromkeys((*self.servers, *self.others)))
        for server in random.sample(servers, len(servers)):
            try:
                client = await self._connected(server, name, lost)
            except ConfigurationError:
                raise
            except Exception as error:  # noqa: BLE001 - callbacks and keys of the user's fail too
                log.debug("%s: %r", self.shown, error)
                troubles.append(_told(error))
            else:
                self._learn(client)
                return client
        reasons = "; ".join(dict.fromkeys(troubles))
        raise UnreachableError(f"{self.shown} cannot be reached: {reasons}")

    async def _connected(self, server: str, name: str, lost: Callable[[], None] | None) -> Client:
        client = Client()
        troubles: list[Exception] = []

        async def note(error: Exception) -> None:
            troubles.append(error)
            log.debug("%s: %r", self.shown, error)

        async def ended() -> None:
            if lost is not None:
                lost()

        try:
            await client.connect(
                servers=[server],
                name=name,
                error_cb=note,
                closed_cb=ended,
                allow_reconnect=False,
                max_reconnect_attempts=1,  # before the first connection
                reconnect_time_wait=0,
                connect_timeout=SECONDS,
                ping_interval=2,
                max_outstanding_pings=2,
                pending_size=0,  # nothing sent waits for a server that does not read
                flusher_queue_size=0,
                **self.options,
            )
            self._check(client)
        except NoServersError as error:
            await self.leave(client)
            raise (troubles[0] if troubles else error) from None
        except BaseException:
            await self.leave(client)
            raise
        return client

    async def leave(self, client: Client) -> None:
        """Close a connection, whatever state it is in; a server that does not read is left so."""
        # The client waits until all is written, and says nowhere how not to.
        writer = getattr(getattr(client, "_transport", None), "_io_writer", None)
        with contextlib.suppress(NATSError, OSError, TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                await client.close()
        if writer is not None:
            writer.transport.abort()

    def _check(self, client: Client) -> None:
        version = client.connected_server_version
        if (version.major, version.minor) < _OLDEST:
            raise ConfigurationError(
                f"{self.shown}: nats-server {version.major}.{version.minor} is too old;"
                " 2.12 or later is needed"
            )

    def _learn(self, client: Client) -> None:
        """Other servers it knows of are tried too from now on; an address alone is seldom what a
        certificate is for."""
        self.others = [
            uri.geturl()
            for uri in client.discovered_servers
            if uri.scheme != "tls" or not _numeric(uri)
        ]


def _numeric(uri: ParseResult) -> bool:
    try:
        ipaddress.ip_address(uri.hostname or "")
    except ValueError:
        return False
    return True


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__
