"""What is asked of a store, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ...errors import MessagingError
from ...store import Claim, Turn, Verdict
from .session import Call


class Operation:
    """One thing on its way to the server. sent: it is under way, or was."""

    __slots__ = ("future", "sent", "since")

    def __init__(self, future: asyncio.Future[Any], since: float) -> None:
        self.future = future
        self.since = since
        self.sent = False

    @property
    def begun(self) -> bool:
        """Whether a part of it was answered."""
        return False

    def succeed(self, answer: Any) -> None:
        """Answer, if anyone waits."""
        if not self.future.done():
            self.future.set_result(answer)

    def fail(self, error: MessagingError) -> None:
        """The same with an error."""
        if not self.future.done():
            self.future.set_exception(error)


class Put(Operation):
    """Turns; answered once each has its verdict."""

    __slots__ = ("_missing", "_verdicts", "turns")

    def __init__(self, turns: tuple[Turn, ...], future: asyncio.Future[Any], since: float) -> None:
        super().__init__(future, since)
        self.turns = turns
        self._verdicts: list[Verdict | None] = [None] * len(turns)
        self._missing = len(turns)

    @property
    def begun(self) -> bool:
        """Whether a turn has its verdict."""
        return self._missing < len(self.turns)

    def judge(self, index: int, verdict: Verdict) -> None:
        """What became of one of the turns."""
        self._verdicts[index] = verdict
        self._missing -= 1
        if not self._missing:
            self.succeed(tuple(self._verdicts))


class Ask(Operation):
    """A call of its own. repeatable: asking twice does no harm."""

    __slots__ = ("call", "repeatable")

    def __init__(
        self, call: Call, repeatable: bool, future: asyncio.Future[Any], since: float
    ) -> None:
        super().__init__(future, since)
        self.call = call
        self.repeatable = repeatable


class Take(Operation):
    """A claim. undo: called with what it took, if nobody waits for that any more."""

    __slots__ = ("claim", "undo")

    def __init__(
        self,
        claim: Claim,
        undo: Callable[[Any], None],
        future: asyncio.Future[Any],
        since: float,
    ) -> None:
        super().__init__(future, since)
        self.claim = claim
        self.undo = undo
