"""The workloads over a table in asyncpg: the queue that many write for themselves.

A message is a row. A taker claims rows with FOR UPDATE SKIP LOCKED in a statement that gives them
a lease, and deletes them when they are handled, so a crash loses nothing. Senders NOTIFY; a taker
that finds nothing waits for that, and looks again after some seconds anyway. No keys, fences,
retries or history.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from asyncpg import Pool

from ..buses import place
from . import over
from .over import Content, Taken
from .over_postgres import connection, pool

_SCHEMA = """
CREATE TABLE message (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mailbox text NOT NULL,
    body text NOT NULL,
    leased timestamptz NOT NULL DEFAULT '-infinity'
);
CREATE INDEX line ON message (mailbox, id);
"""
_PUT = """
WITH sent AS (INSERT INTO message (mailbox, body) VALUES ($1, $2))
SELECT pg_notify('mail', $1)
"""
_SPREAD = """
WITH sent AS (INSERT INTO message (mailbox, body) SELECT unnest($1::text[]), $2)
SELECT pg_notify('mail', mailbox) FROM unnest($1::text[]) AS mailbox
"""
_TAKE = """
UPDATE message SET leased = now() + interval '30 s' WHERE id = ANY (ARRAY(
    SELECT id FROM message WHERE mailbox = $1 AND leased < now()
    ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
)) RETURNING id, body
"""
_ACK = "DELETE FROM message WHERE id = ANY ($1::bigint[])"
_WAIT = 5
"""Seconds a taker waits before it looks again."""


class Rows:
    """A statement for each of put, spread, take and ack; all but put are for any number."""

    def __init__(self, connections: Pool, mailboxes: list[str]) -> None:
        self._pool = connections
        self._bells = {mailbox: asyncio.Event() for mailbox in mailboxes}

    def ring(self, *notified: Any) -> None:
        """What LISTEN heard: its last word is a mailbox."""
        self._bells[notified[-1]].set()

    async def put(self, mailbox: str, contents: list[Content]) -> None:
        (content,) = contents
        await self._pool.execute(_PUT, mailbox, json.dumps(content))

    async def spread(self, content: Content) -> None:
        await self._pool.execute(_SPREAD, [*self._bells], json.dumps(content))

    async def take(self, mailbox: str, limit: int) -> list[Taken]:
        bell = self._bells[mailbox]
        while True:
            bell.clear()
            rows = await self._pool.fetch(_TAKE, mailbox, limit)
            if rows:
                return sorted((row["id"], json.loads(row["body"])) for row in rows)
            with suppress(TimeoutError):
                async with asyncio.timeout(_WAIT):
                    await bell.wait()

    async def ack(self, mailbox: str, taken: list[Taken]) -> None:
        await self._pool.execute(_ACK, [number for number, _ in taken])


@asynccontextmanager
async def fresh(
    store: str,
    mailboxes: list[str],
    *,
    topic: bool = False,
    connections: int = 2,
    kind: type[Rows] = Rows,
) -> AsyncIterator[Rows]:
    """A table on a server of its own; one connection more listens."""
    with place(store) as url:
        async with pool(url, connections) as opened, connection(url) as listening:
            await opened.execute(_SCHEMA)
            rows = kind(opened, mailboxes)
            await listening.add_listener("mail", rows.ring)
            yield rows


stream = partial(over.stream, fresh)
round_trip = partial(over.round_trip, fresh)
broadcast = partial(over.broadcast, fresh)
