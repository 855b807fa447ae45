"""A command on its way to the server, and who waits for its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Args = tuple[Any, ...]
Lazy = Callable[[], Args]
"""Arguments that are put together when the call is sent."""
Undo = Callable[[Any], Args | None]
"""From the answer that nobody waits for any more to the call that undoes it, if one must."""


class Waiter(Protocol):
    """Who waits for an answer: a future, or several as one."""

    def done(self) -> bool: ...
    def cancelled(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: BaseException, /) -> None: ...


class Call:
    """One command on its way."""

    __slots__ = ("args", "repeatable", "sent", "since", "undo", "waiter")

    def __init__(
        self,
        args: Args | Lazy,
        waiter: Waiter,
        since: float,
        repeatable: bool,
        undo: Undo | None,
    ) -> None:
        self.args = args
        self.waiter = waiter
        self.since = since
        self.repeatable = repeatable
        self.undo = undo
        self.sent = False
