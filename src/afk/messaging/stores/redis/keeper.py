"""Renews held leases from a thread of its own, which a blocked event loop does not stop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable
from typing import Any

from ...errors import MessagingError
from ...lifecycle import parse_token
from ...log import log
from ..holding import Holdings
from .codec import ms
from .link import Link

PAUSE, LOOK = 0.5, 60.0
"""Seconds until a renewal that failed is tried again; until the thread looks around, at most."""


class Keeper:
    """The held leases of one store, and the thread that renews them.

    made: makes the thread's own link, inside the thread. call: the arguments of a script.
    """

    def __init__(self, made: Callable[[], Link], call: Callable[..., tuple[Any, ...]]) -> None:
        self._made = made
        self._call = call
        self._owner = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._holdings = Holdings()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._next = float("inf")
        self._moved = self._stopped = False

    def __contains__(self, token: object) -> bool:
        return token in self._holdings

    def hold(self, held: Iterable[tuple[str, float, float]]) -> None:
        """Renew each (token, lease, seconds in all) from now on."""
        with self._lock:
            self._holdings.apply(held, ())
            wait = self._holdings.wait()
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name="afk-redis keeper", daemon=True)
            self._thread.start()
        elif wait is not None and self._owner.time() + wait < self._next:
            self._nudge(self._wake.set)

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
        self._stopped = True
        if self._thread is not None:
            self._nudge(self._cancel)
            await asyncio.to_thread(self._thread.join)

    def _nudge(self, call: Callable[[], object]) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(call)

    def _cancel(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()

    # -- in the thread -------------------------------------------------------------------

    def _main(self) -> None:
        try:
            asyncio.run(self._keep())
        except asyncio.CancelledError:
            pass
        except Exception:  # noqa: BLE001 - it must be known that the thread is gone
            log.exception("leases are not renewed any more")

    async def _keep(self) -> None:
        self._keeping = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        link: Link | None = None
        try:
            while not self._stopped and not self._owner.is_closed():
                self._next = float("inf")  # meanwhile, who holds something wakes it
                with self._lock:
                    due = self._holdings.due()
                try:
                    if due:
                        link = await self._link_now(link)
                        await self._renew(link, due)
                except MessagingError as error:
                    log.warning("leases could not be renewed, trying again: %s", error)
                    with self._lock:
                        self._holdings.put_off([token for token, _ in due], PAUSE)
                await self._sleep()
        finally:
            if link is not None:
                await link.close()

    async def _link_now(self, link: Link | None) -> Link:
        if link is not None and not self._moved:
            return link
        if link is not None:
            await link.close()
        self._moved = False
        try:
            link = self._made()
            await link.open()
        except MessagingError:
            self._moved = True  # the old one is closed: another is needed all the same
            raise
        return link

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

    async def _renew(self, link: Link, due: list[tuple[str, float]]) -> None:
        args: list[Any] = []
        tokens = {}
        for token, seconds in due:
            message_id, fence = parse_token(token)
            tokens[message_id] = token
            args += (message_id, fence, ms(seconds))
        _, _, lost = await link.ask(self._call("renew", *args), repeatable=True)
        for message_id in lost:
            self.release(tokens[message_id.decode()])
