"""Telling callbacks of messages that became dead letters: best effort, each in a time-box."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from .errors import MessagingError
from .log import ids, log
from .store import A2ADeliveryStore, Query, Row

CALLBACK_SECONDS = 10.0


class Obituaries:
    """The callbacks of one bus, and the tasks that run them."""

    def __init__(self, store: A2ADeliveryStore) -> None:
        self._store = store
        self._callbacks: list[Callable[[Row], Any]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def call(self, callback: Callable[[Row], Awaitable[None] | None]) -> None:
        """From now on, call this with the row of each message that died."""
        self._callbacks.append(callback)

    def report(self, died: tuple[str, ...]) -> None:
        """Tell the callbacks, in a task of its own."""
        if not died:
            return
        of = ids(message_id=died[0] if len(died) == 1 else None)
        some = ", ".join(died[:3])
        log.warning("%d message(s) became dead letters: %s", len(died), some, extra=of)
        if self._callbacks:
            task = asyncio.create_task(self._announce(died))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Wait until all that died has been told."""
        while tasks := list(self._tasks):
            await asyncio.gather(*tasks, return_exceptions=True)
            # By hand: of done tasks alone, newer Pythons' gather does not let callbacks run.
            self._tasks.difference_update(tasks)

    async def _announce(self, died: tuple[str, ...]) -> None:
        try:
            rows = await self._store.browse(Query(ids=died))
        except MessagingError as error:
            log.warning("dead letters could not be read for the callbacks: %s", error)
            return
        for row in rows:
            for callback in self._callbacks:
                await _call(callback, row)


async def _call(callback: Callable[[Row], Any], row: Row) -> None:
    try:
        async with asyncio.timeout(CALLBACK_SECONDS):
            result = callback(row)
            if inspect.isawaitable(result):
                await result
    except Exception:  # noqa: BLE001 - a callback may raise anything
        log.exception("a dead-letter callback failed; the dead letter stays")
