"""The workloads over the same table where it is meant to take many at a time.

A NOTIFY that is part of an insert makes commits wait for each other, so here it follows by itself,
one for all that was sent meanwhile; a sender does not wait for it. If it gets lost, the taker looks
again after some seconds.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial

from asyncpg import Pool

from . import over, postgres_rows
from .over import Content
from .postgres_rows import Rows

_PUT = "INSERT INTO message (mailbox, body) SELECT $1, unnest($2::text[])"
_NOTIFY = "SELECT pg_notify('mail', mailbox) FROM unnest($1::text[]) AS mailbox"


class Batches(Rows):
    """Rows whose senders notify together."""

    def __init__(self, connections: Pool, mailboxes: list[str]) -> None:
        super().__init__(connections, mailboxes)
        self._changed: set[str] = set()
        self._notifier: asyncio.Task[None] | None = None

    async def put(self, mailbox: str, contents: list[Content]) -> None:
        await self._pool.execute(_PUT, mailbox, [json.dumps(content) for content in contents])
        self._changed.add(mailbox)
        if self._notifier is None or self._notifier.done():
            self._notifier = asyncio.create_task(self._notify())

    async def _notify(self) -> None:
        while self._changed:
            changed, self._changed = [*self._changed], set()
            await self._pool.execute(_NOTIFY, changed)


fresh = partial(postgres_rows.fresh, kind=Batches)
stream = partial(over.stream, fresh)
drain = partial(over.drain, fresh)
round_trip = partial(over.round_trip, fresh)
broadcast = partial(over.broadcast, fresh)
