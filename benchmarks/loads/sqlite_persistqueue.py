"""The workloads through persist-queue's SQLiteAckQueue: JSON, and its default, which is synced."""

from __future__ import annotations

from functools import partial
from typing import Self

import persistqueue
from persistqueue.serializers import json

from . import over, over_sqlite
from .over import Content, Taken
from .over_sqlite import FilePeer


class PersistQueue(FilePeer):
    """A file for each mailbox."""

    async def open(self, folder: str, mailboxes: list[str]) -> Self:
        """Make them."""
        self._queues = {
            name: persistqueue.SQLiteAckQueue(f"{folder}/{name}", serializer=json)
            for name in mailboxes
        }
        return self

    async def insert(self, mailbox: str, content: Content) -> None:
        """Put it in."""
        self._queues[mailbox].put(content)

    async def first(self, mailbox: str) -> Taken | None:
        """Get one, which stays there."""
        try:
            item = self._queues[mailbox].get(block=False, raw=True)
        except persistqueue.Empty:
            return None
        return item["pqid"], item["data"]

    async def ack(self, mailbox: str, taken: list[Taken]) -> None:
        """Mark them."""
        for number, _ in taken:
            self._queues[mailbox].ack(id=number)

    async def close(self) -> None:
        """Each file."""
        for queue in self._queues.values():
            queue.close()


fresh = partial(over_sqlite.fresh, PersistQueue)
stream = partial(over.stream, fresh, batch=1)
round_trip = partial(over.round_trip, fresh)
