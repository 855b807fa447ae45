"""Hearing of what other processes did, and of what time brings: one connection, whoever waits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from redis.asyncio.connection import AbstractConnection

from ...hints import Bells
from ...lifecycle import RetryPolicy
from ...log import log
from .faults import code_of, moved_to
from .place import Place, drop, leave
from .sentinels import Address

BLOCK_SECONDS = 20
SILENT_SECONDS = 10.0
"""Beyond the time it may block, a server that says nothing is gone."""
AT_ONCE = 1000
BACKOFF = RetryPolicy(base=0.1, cap=2.0)
DUE = "due:"


class Ears:
    """Waits on this process's wake-up list, and for the time when something is due.

    look: lets time pass, and has the news told. strayed: told which server has the list instead.
    patience: seconds in which a connection must be made.
    """

    def __init__(
        self,
        place: Place,
        list_key: str,
        bells: Bells,
        look: Callable[[], None],
        strayed: Callable[[Address], None],
        patience: float,
    ) -> None:
        self._strayed = strayed
        self._patience = patience
        self._place = place
        self._key = list_key
        self._bells = bells
        self._look = look
        self._loop = asyncio.get_running_loop()
        self._due = float("inf")
        self._closed = False
        self._alarm: asyncio.TimerHandle | None = None
        self._listening: asyncio.Task[None] | None = None
        self._connection: AbstractConnection | None = None

    def awake(self) -> None:
        """Someone waits."""
        if self._listening is None:
            self._listening = self._loop.create_task(self._listen())

    async def close(self) -> None:
        """Hear no more."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])

    def told(self, topics: tuple[str, ...]) -> None:
        """Pass news on to who waits for it."""
        for topic in topics:
            if topic.startswith(DUE):
                self.expect(int(topic[len(DUE) :]) / 1000)
            else:
                self._bells.ring(topic)

    def expect(self, seconds: float) -> None:
        """Something is due then: look at that time, if anyone waits."""
        at = self._loop.time() + seconds
        if at < self._due and not self._closed:
            self._due = at
            if self._alarm is not None:
                self._alarm.cancel()
            # A moment later, as both sides round to whole ms.
            self._alarm = self._loop.call_later(min(seconds + 0.001, 86_400.0), self._ring_out)

    def _ring_out(self) -> None:
        self._alarm, self._due = None, float("inf")
        if self._bells:
            self._look()

    def renew(self) -> None:
        """The server is another one, or was away: listen there."""
        if self._connection is not None:
            drop(self._connection)

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                async with asyncio.timeout(self._patience):
                    self._connection = await self._place.follow()
                for topic in self._bells.topics():  # what was told meanwhile is lost
                    self._bells.ring(topic)
                while True:
                    await self._hear(self._connection)
                    failures = 0
            except Exception as error:  # noqa: BLE001 - who waits must be heard again
                log.debug("%s: not heard: %s", self._place.shown, error)
                failures += 1
                if code_of(error) == "MOVED" and (address := moved_to(error)) is not None:
                    self._strayed(address)
            finally:
                connection, self._connection = self._connection, None
                if connection is not None:
                    await leave(connection)
            await asyncio.sleep(BACKOFF.delay(failures, random.random()))

    async def _hear(self, connection: AbstractConnection) -> None:
        """All that is on the list, then whatever comes next."""
        calls = (("LPOP", self._key, AT_ONCE), ("BLPOP", self._key, BLOCK_SECONDS))
        await connection.send_packed_command(connection.pack_commands(calls), check_health=False)
        async with asyncio.timeout(SILENT_SECONDS):
            waiting = await connection.read_response()
        self.told(tuple([topic.decode() for topic in waiting or ()]))
        async with asyncio.timeout(BLOCK_SECONDS + SILENT_SECONDS):
            popped = await connection.read_response()
        if popped is not None:
            self.told((popped[1].decode(),))
