"""Connections to a PostgreSQL server of a peer's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from asyncpg import Connection, Pool, connect, create_pool

CONNECTIONS = 20
"""At most: more of them make the server slower than the queue for one does."""
FEW_CONNECTIONS = 5
"""The same for those whose every insert notifies, in turns: PgQueuer's default for a pool."""


async def _keep(connection: Connection) -> None:
    """Our statements leave nothing in a session, so a release need not ask for a reset."""


@asynccontextmanager
async def pool(url: str, connections: int, most: int = CONNECTIONS) -> AsyncIterator[Pool]:
    """So many, or as many as are good, all open; a release costs no round trip."""
    size = min(connections, most)
    async with create_pool(url, min_size=size, max_size=size, reset=_keep) as opened:
        yield opened


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[Connection]:
    """One that is not shared: it listens."""
    opened = await connect(url)
    try:
        yield opened
    finally:
        await opened.close()
