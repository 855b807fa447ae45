"""A coroutine in a thread of its own, which a blocked event loop does not stop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from ..log import log


class Aside:
    """Runs `work()` in an event loop of its own, once at a time."""

    def __init__(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._name = name
        self._work = work
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def running(self) -> bool:
        """Whether it is at work."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin, unless it has, or was stopped."""
        if not (self.running or self._stopped):
            self._thread = threading.Thread(target=self._main, name=self._name, daemon=True)
            self._thread.start()

    def call(self, function: Callable[[], object]) -> None:
        """Have its loop call this, if there is one yet."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(function)

    async def stop(self) -> None:
        """Cancel it, and wait for its end."""
        self._stopped = True
        if self._thread is not None:
            self.call(self._cancel)
            await asyncio.to_thread(self._thread.join)

    # -- in the thread -------------------------------------------------------------------

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except asyncio.CancelledError:
            pass
        except Exception:  # noqa: BLE001 - it must be known that the thread is gone
            log.exception("%s ended", self._name)

    async def _run(self) -> None:
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        if not self._stopped:
            await self._work()
