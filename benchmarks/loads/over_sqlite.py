"""Peers in a file of their own, in the process of those who send and receive.

None of them tells a reader that there is mail; here an event does, which costs them nothing: they
would look every so often.
"""

from __future__ import annotations

import asyncio
import tempfile
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from .over import Content, Peer, Taken


class FilePeer(ABC):
    """Mailboxes in a folder; each step is a commit."""

    def __init__(self) -> None:
        self._mail: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.mailboxes: list[str] = []

    @abstractmethod
    async def open(self, folder: str, mailboxes: list[str]) -> Self:
        """Make them."""

    @abstractmethod
    async def insert(self, mailbox: str, content: Content) -> None:
        """Store one."""

    @abstractmethod
    async def first(self, mailbox: str) -> Taken | None:
        """Take one, if there is one."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the file."""

    @abstractmethod
    async def ack(self, mailbox: str, taken: list[Taken]) -> None:
        """Each for itself."""

    async def put(self, mailbox: str, contents: list[Content]) -> None:
        """One after the other."""
        for content in contents:
            await self.insert(mailbox, content)
        self._mail[mailbox].set()

    async def spread(self, content: Content) -> None:
        """A copy for each."""
        for mailbox in self.mailboxes:
            await self.put(mailbox, [content])

    async def take(self, mailbox: str, limit: int) -> list[Taken]:
        """One; waits for it."""
        while True:
            self._mail[mailbox].clear()
            taken = await self.first(mailbox)
            if taken is not None:
                await asyncio.sleep(0)  # a sender beside it gets its turn
                return [taken]
            await self._mail[mailbox].wait()


@asynccontextmanager
async def fresh(
    kind: type[FilePeer],
    store: str,
    mailboxes: list[str],
    *,
    topic: bool = False,
    connections: int = 2,
) -> AsyncIterator[Peer]:
    """A peer of that kind in a new folder."""
    with tempfile.TemporaryDirectory(prefix="afk-bench-") as folder:
        peer = await kind().open(folder, mailboxes)
        peer.mailboxes = mailboxes
        try:
            yield peer
        finally:
            await peer.close()
