"""Several servers that belong together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self

from .process import Daemon, ServerError
from .server import Server


class Group(ABC):
    """Starts as a whole, and ends as a whole: by force, since nobody needs what it keeps."""

    @abstractmethod
    def _members(self) -> Sequence[Daemon]:
        """All its processes."""

    @abstractmethod
    def _form(self) -> None:
        """Start them, and return when they work together."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all processes, once, and return when they work together."""
        try:
            self._form()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all processes."""
        for server in self._members():
            server.kill()


def first_answer(servers: list[Server], *args: str | int) -> Any:
    """The answer of the first server that gives one."""
    for server in servers:
        with suppress(OSError):
            return server.call(*args, timeout=1.0)
    raise ServerError(f"nobody answers {args[0]}")
