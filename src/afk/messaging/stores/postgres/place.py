"""Where the database is, and the ways to it: of a URL, or of a pool that is somebody else's."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import asyncpg

from ...errors import ConfigurationError

CONNECT_SECONDS, HOST_SECONDS = 10.0, 3.0
"""For one host; for each of several: the next may be alive."""
LENT_AT_ONCE = 10
"""Connections for transactions, at most; one that is not used for a minute is closed."""


_NEXT = (OSError, asyncpg.TargetServerAttributeNotMatched, asyncpg.CannotConnectNowError)
"""What a host raises that is down, or a standby, or not up yet."""


class Place(Protocol):
    """A database, and how to get connections to it."""

    shown: str
    """How it is named in errors and logs: without a password."""

    async def connect(self) -> Any:
        """A connection."""

    async def leave(self, connection: Any) -> None:
        """Let go of one that is in order."""

    async def lend(self) -> Any:
        """A connection for a transaction; `leave` takes it back too."""

    def own(self) -> Place | None:
        """A place for another event loop; None if there can be none."""

    async def close(self) -> None:
        """Let go of what is kept for `lend`."""


def drop(connection: Any) -> None:
    """Let go of a connection whose state is not certain, without waiting for the server."""
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()


def place_of(source: Any) -> Place:
    """The place of a URL or a pool; ConfigurationError if it is neither."""
    if isinstance(source, str):
        return Address(source)
    if isinstance(source, asyncpg.Pool):
        return Borrowed(source)
    raise ConfigurationError(
        f"dsn_or_pool: a postgresql:// URL or an asyncpg.Pool is needed, not"
        f" {type(source).__name__}"
    )


class Address:
    """The database at a URL."""

    def __init__(self, dsn: str) -> None:
        try:
            parts = urlsplit(dsn)
            query = parse_qs(parts.query)
            hosts = parts.netloc.rpartition("@")[2]
        except ValueError:  # its text may show a password
            raise ConfigurationError("the URL cannot be read: its host is malformed") from None
        if parts.scheme not in ("postgresql", "postgres"):
            raise ConfigurationError(f"{parts.scheme!r}: a postgresql:// URL is needed")
        user = parts.username and f"{parts.username}@"
        self.shown = f"postgresql://{user or ''}{hosts}{parts.path}"
        self._dsn = dsn
        self._hosts = [dsn]
        """The URL, or of several hosts one for each."""
        self._options: dict[str, Any] = {"statement_cache_size": 0, "timeout": CONNECT_SECONDS}
        if "," in hosts + "".join(query.get("host", ())) and "target_session_attrs" not in query:
            self._options["target_session_attrs"] = "read-write"
            if "," in hosts:
                whom = parts.netloc.removesuffix(hosts)
                self._hosts = [
                    parts._replace(netloc=whom + host).geturl() for host in hosts.split(",")
                ]
                self._options["timeout"] = HOST_SECONDS
        self._pool: asyncpg.Pool | None = None

    async def connect(self) -> Any:
        """A new connection."""
        return await self._dial(**self._options)

    async def _dial(self, *_: Any, **options: Any) -> Any:
        """To the first host that will do; options: those of asyncpg.connect."""
        *others, last = self._hosts
        try:
            for url in others:
                with contextlib.suppress(*_NEXT):
                    return await asyncpg.connect(url, **options)
            return await asyncpg.connect(last, **options)
        except ValueError as error:  # of asyncpg's reading of the URL, which may quote it
            raise ConfigurationError(
                f"{self.shown} cannot be read: {type(error).__name__}"
            ) from None

    async def leave(self, connection: Any) -> None:
        """Close it, or put it back for the next transaction."""
        if self._pool is not None and hasattr(connection, "_holder"):
            await self._pool.release(connection)
        else:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=1.0)

    async def lend(self) -> Any:
        """One of a few that are kept for this."""
        if self._pool is None:
            self._pool = asyncpg.create_pool(
                self._dsn,
                connect=self._dial,
                min_size=0,
                max_size=LENT_AT_ONCE,
                max_inactive_connection_lifetime=60.0,
                **self._options,
            )
        await self._pool  # at once, if it is ready
        return await self._pool.acquire()

    def own(self) -> Place | None:
        """The same database."""
        return Address(self._dsn)

    async def close(self) -> None:
        """Close what was kept for transactions."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()


class Borrowed:
    """The database of a pool that the caller made: connections are acquired, and released."""

    shown = "the pool's database"

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def connect(self) -> Any:
        """One of the pool's."""
        loop = getattr(self._pool, "_loop", None)
        if loop not in (None, asyncio.get_running_loop()):
            raise ConfigurationError(
                "dsn_or_pool: the pool belongs to another event loop; make one in this loop"
            )
        try:
            return await self._pool.acquire(timeout=CONNECT_SECONDS)
        except asyncpg.InterfaceError as error:
            raise ConfigurationError(
                f"dsn_or_pool: the pool cannot be used ({error}); await asyncpg.create_pool(...),"
                " and close the bus before the pool"
            ) from error
        except TimeoutError:
            raise OSError(
                "no connection of the pool became free; a bus needs one for its calls, one to wait"
                " with, and one for each open transaction: raise max_size"
            ) from None

    lend = connect

    async def leave(self, connection: Any) -> None:
        """Give it back."""
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await self._pool.release(connection, timeout=1.0)

    def own(self) -> Place | None:
        """A place with the same settings, as far as the pool tells them."""
        arguments = getattr(self._pool, "_connect_args", None)
        options = getattr(self._pool, "_connect_kwargs", None)
        if arguments is None or options is None:
            return None
        return _Alike(arguments, options)

    async def close(self) -> None:
        """Nothing is kept."""


class _Alike:
    """Connections like a pool's, in another event loop."""

    shown = Borrowed.shown

    def __init__(self, arguments: Any, options: dict[str, Any]) -> None:
        self._arguments = arguments
        self._options = {"timeout": CONNECT_SECONDS} | options | {"statement_cache_size": 0}
        self._options.pop("loop", None)

    async def connect(self) -> Any:
        """A new connection."""
        return await asyncpg.connect(*self._arguments, **self._options)

    lend = connect

    async def leave(self, connection: Any) -> None:
        """Close it."""
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=1.0)

    def own(self) -> Place | None:
        """Another one."""
        return _Alike(self._arguments, self._options)

    async def close(self) -> None:
        """Nothing is kept."""
