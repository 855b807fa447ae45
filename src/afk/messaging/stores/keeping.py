"""Renews held leases from a thread of its own, which a blocked event loop does not stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from ..errors import MessagingError
from ..log import log
from .aside import Aside
from .holding import Holdings

PAUSE, LOOK = 0.5, 60.0
"""Seconds until a renewal that failed is tried again; until the thread looks around, at most."""


class Renewer(Protocol):
    """The thread's own way to the store."""

    async def renew(self, due: list[tuple[str, float]]) -> Iterable[str]:
        """Renew each (token, seconds); the tokens whose leases are lost. MessagingError if not."""

    async def close(self) -> None:
        """Let go of it."""


class Keeper:
    """The held leases of one store, and the thread that renews them.

    name: of the thread. connect: makes its way to the store, in the thread; MessagingError.
    """

    def __init__(self, name: str, connect: Callable[[], Awaitable[Renewer]]) -> None:
        self._connect = connect
        self._owner = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._holdings = Holdings()
        self._wake = asyncio.Event()
        self._next = float("inf")
        self._moved = False
        self._aside = Aside(name, self._keep)

    def __contains__(self, token: object) -> bool:
        return token in self._holdings

    def hold(self, held: Iterable[tuple[str, float, float]]) -> None:
        """Renew each (token, lease, seconds in all) from now on."""
        with self._lock:
            self._holdings.apply(held, ())
            wait = self._holdings.wait()
        if not self._aside.running:
            self._aside.start()
        elif wait is not None and self._owner.time() + wait < self._next:
            self._aside.call(self._wake.set)

    def release(self, token: str) -> None:
        """Renew it no more."""
        if token in self._holdings:
            with self._lock:
                self._holdings.apply((), (token,))

    def renew(self) -> None:
        """The server may be another one: connect anew before the next renewal."""
        self._moved = True

    async def close(self) -> None:
        """End the thread."""
        await self._aside.stop()

    # -- in the thread -------------------------------------------------------------------

    async def _keep(self) -> None:
        way: Renewer | None = None
        try:
            while not self._owner.is_closed():
                self._next = float("inf")  # meanwhile, who holds something wakes it
                with self._lock:
                    due = self._holdings.due()
                try:
                    if due:
                        way = await self._way_now(way)
                        for token in await way.renew(due):
                            self.release(token)
                except MessagingError as error:
                    log.warning("leases could not be renewed, trying again: %s", error)
                    with self._lock:
                        self._holdings.put_off([token for token, _ in due], PAUSE)
                await self._sleep()
        finally:
            if way is not None:
                await way.close()

    async def _way_now(self, way: Renewer | None) -> Renewer:
        if way is not None and not self._moved:
            return way
        if way is not None:
            await way.close()
        self._moved = False
        try:
            return await self._connect()
        except MessagingError:
            self._moved = True  # the old one is closed: another is needed all the same
            raise

    async def _sleep(self) -> None:
        with self._lock:
            wait = self._holdings.wait()
        # A look now and then at whether the process's own loop is still there.
        wait = LOOK if wait is None else min(wait, LOOK)
        self._next = self._owner.time() + wait
        try:
            async with asyncio.timeout(wait):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()
