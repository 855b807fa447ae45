"""The workloads through huey's SQLite storage, synced (`fsync=True`). A task is gone once it is
taken, so there is nothing to ack, and what a crash interrupts is lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self

from huey import SqliteHuey

from . import over, over_sqlite
from .over import Content, Taken
from .over_sqlite import FilePeer


class Huey(FilePeer):
    """A queue for each mailbox, in one file."""

    async def open(self, folder: str, mailboxes: list[str]) -> Self:
        """Make them."""
        self._queues: dict[str, SqliteHuey] = {}
        self._tasks: dict[str, Callable[[Content], Any]] = {}
        for name in mailboxes:
            queue = SqliteHuey(name, filename=f"{folder}/huey.db", fsync=True)
            self._queues[name] = queue
            self._tasks[name] = queue.task()(_same)
        return self

    async def insert(self, mailbox: str, content: Content) -> None:
        """Call the task."""
        self._tasks[mailbox](content)

    async def first(self, mailbox: str) -> Taken | None:
        """Take the task, and its argument from it."""
        task = self._queues[mailbox].dequeue()
        return None if task is None else (None, task.args[0])

    async def ack(self, mailbox: str, taken: list[Taken]) -> None:
        """Nothing: it was deleted as it was taken."""

    async def close(self) -> None:
        """Each queue."""
        for queue in self._queues.values():
            queue.storage.close()


def _same(content: Content) -> Content:
    return content


fresh = partial(over_sqlite.fresh, Huey)
stream = partial(over.stream, fresh, batch=1)
round_trip = partial(over.round_trip, fresh)
