"""Where the servers are, and how to get a connection to one of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from nats.aio.client import Client
from nats.errors import Error as NATSError

from ...errors import ConfigurationError, StoreError
from ...log import log

SECONDS = 2
"""How long one server has to accept a connection, and to answer one question."""

_OLDEST = (2, 12)


class UnreachableError(StoreError):
    """No server took the connection."""


class Place(Struct):
    """Servers of one system, and the settings of a connection. shown: without credentials."""

    servers: list[str]
    options: dict[str, Any]
    shown: str

    async def connect(self, name: str, lost: Callable[[], None] | None = None) -> Client:
        """A new connection; StoreError or ConfigurationError if there is none.

        It does not mend itself: `lost` is called once it is gone.
        """
        client = Client()
        troubles: list[Exception] = []

        async def note(error: Exception) -> None:
            troubles.append(error)
            log.debug("%s: %s", self.shown, error)

        async def ended() -> None:
            if lost is not None:
                lost()

        try:
            await client.connect(
                servers=list(self.servers),
                name=name,
                error_cb=note,
                closed_cb=ended,
                allow_reconnect=False,
                max_reconnect_attempts=1,  # of each server, before the first connection
                reconnect_time_wait=0,
                connect_timeout=SECONDS,
                ping_interval=2,
                max_outstanding_pings=2,
                **self.options,
            )
        except (NATSError, OSError, TimeoutError, ValueError) as error:
            reason = troubles[-1] if troubles else error
            raise UnreachableError(f"{self.shown} cannot be reached: {_told(reason)}") from None
        except BaseException:
            await self.leave(client)
            raise
        self._learn(client)
        return client

    async def leave(self, client: Client) -> None:
        """Close a connection, whatever state it is in."""
        with contextlib.suppress(NATSError, OSError, asyncio.TimeoutError):
            await client.close()

    def _learn(self, client: Client) -> None:
        """Check its version; other servers it knows of are tried too from now on."""
        version = client.connected_server_version
        if (version.major, version.minor) < _OLDEST:
            raise ConfigurationError(
                f"{self.shown}: nats-server {version.major}.{version.minor} is too old;"
                " 2.12 or later is needed"
            )
        for uri in client.discovered_servers:
            if uri.geturl() not in self.servers:
                self.servers.append(uri.geturl())


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__
