"""Renews held leases from a thread of its own, which a blocked event loop does not stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from ..errors import MessagingError
from ..lifecycle import Extend
from ..log import log
from ..store import Claim, Leased, Turn
from .aside import Aside
from .holding import Holdings

PAUSE, LOOK = 0.5, 60.0
"""Seconds until a renewal that failed is tried again; until the thread looks around, at most."""


class Renewer(Protocol):
    """The thread's own way to the store."""

    async def open(self) -> None:
        """Connect."""

    async def renew(self, due: list[tuple[str, float]]) -> list[str]:
        """Renew each token for so many seconds; the tokens that are not held any more."""

    async def close(self) -> None:
        """Let go of the connection."""


class Keeper:
    """The held leases of one store, and the thread that renews them.

    made: makes the thread's renewer, inside the thread.
    """

    def __init__(self, name: str, made: Callable[[], Renewer]) -> None:
        self._made = made
        self._owner = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._holdings = Holdings()
        self._wake = asyncio.Event()
        self._next = float("inf")
        self._moved = False
        self._aside = Aside(name, self._keep)

    def __contains__(self, token: object) -> bool:
        return token in self._holdings

    # -- what is held --------------------------------------------------------------------

    def claimed(self, claim: Claim, leased: Iterable[Leased]) -> None:
        """A claim took these; they are renewed if it asked for that."""
        if claim.hold:
            self.hold([(each.token or "", claim.lease, claim.hold) for each in leased])

    def settled(self, turn: Turn) -> None:
        """A turn was accepted: what its outcome means for the renewal of its lease."""
        token, outcome = turn.token, turn.outcome
        if token is None or outcome is None:
            return
        if type(outcome) is not Extend:
            self.release(token)
        elif outcome.hold:
            self.hold([(token, outcome.seconds, outcome.hold)])
        elif outcome.hold is not None:
            self.release(token)

    def hold(self, held: list[tuple[str, float, float]]) -> None:
        """Renew each (token, lease, seconds in all) from now on."""
        if not held:
            return
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
                self._holdings.drop(token)

    def renew(self) -> None:
        """The server may be another one: connect anew before the next renewal."""
        self._moved = True

    async def close(self) -> None:
        """End the thread."""
        await self._aside.stop()

    # -- in the thread -------------------------------------------------------------------

    async def _keep(self) -> None:
        renewer: Renewer | None = None
        try:
            while not self._owner.is_closed():
                self._next = float("inf")  # meanwhile, who holds something wakes it
                with self._lock:
                    due = self._holdings.due()
                try:
                    if due:
                        renewer = await self._renewer_now(renewer)
                        for token in await renewer.renew(due):
                            self.release(token)
                except MessagingError as error:
                    log.warning("leases could not be renewed, trying again: %s", error)
                    with self._lock:
                        self._holdings.put_off([token for token, _ in due], PAUSE)
                await self._sleep()
        finally:
            if renewer is not None:
                await renewer.close()

    async def _renewer_now(self, renewer: Renewer | None) -> Renewer:
        if renewer is not None and not self._moved:
            return renewer
        if renewer is not None:
            await renewer.close()
        self._moved = False
        try:
            renewer = self._made()
            await renewer.open()
        except MessagingError:
            self._moved = True  # the old one is closed: another is needed all the same
            raise
        return renewer

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
