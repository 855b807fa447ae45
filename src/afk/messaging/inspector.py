"""Looking at messages and mending what failed; leases and attempts stay as they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, get_args

from .core import Core
from .errors import ConfigurationError
from .lifecycle import DeadReason, State
from .messages import AgentMessage
from .store import MailboxStats, Query
from .trace import DeadLetter, Entry, Trace, dead_letter_of, entry_of, message_of


class Inspector:
    """The reading and mending half of a bus."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def stats(self) -> dict[str, MailboxStats]:
        """Counts of every registered mailbox."""
        await self._core.pass_time()
        return await self._core.store.counts()

    async def get(self, message_id: str) -> AgentMessage | None:
        """The message, as long as its body is kept."""
        row = await self._core.row(message_id)
        return None if row is None else message_of(row)

    async def status(self, message_id: str) -> State | None:
        """scheduled, pending, leased, done, dead, cancelled; None if it is not known (any more)."""
        row = await self._core.row(message_id)
        return None if row is None else row.state

    async def messages(
        self,
        *,
        agent: str | None = None,
        state: State | None = None,
        correlation_id: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Entry]:
        """What is there, in the order it was accepted; `after`: an entry's cursor."""
        _check(state, State, "state")
        rows = await self._core.browse(
            Query(
                mailbox=agent, state=state, chain=correlation_id, after=_cursor(after), limit=limit
            )
        )
        return [entry_of(row) for row in rows]

    async def trace(self, correlation_id: str) -> Trace:
        """The whole chain under a correlation id, its root included."""
        rows = await self._core.browse(Query(chain=correlation_id))
        return Trace(correlation_id, [entry_of(row) for row in rows])

    async def dead_letters(
        self,
        agent: str | None = None,
        *,
        reason: DeadReason | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[DeadLetter]:
        """Dead letters in the order they died; `after`: a dead letter's cursor."""
        _check(reason, DeadReason, "reason")
        rows = await self._core.browse(
            Query(
                mailbox=agent,
                state="dead",
                reason=reason,
                order="ended",
                after=_cursor(after),
                limit=limit,
            )
        )
        return [dead_letter_of(row) for row in rows]

    async def cancel(self, *ids: str) -> int:
        """Cancel what no one has claimed yet; how many that were."""
        return await self._amend("cancel", ids, None)

    async def redrive(self, *ids: str, agent: str | None = None) -> int:
        """Dead letters pending again, attempts, hops and ttl anew; how many.

        Those of an unregistered agent stay dead. Neither ids nor agent: ValueError.
        """
        return await self._amend("redrive", ids, agent)

    async def discard(self, *ids: str, agent: str | None = None) -> int:
        """Let go of dead letters; how many. Neither ids nor agent: ValueError."""
        return await self._amend("discard", ids, agent)

    def on_dead_letter(self, callback: Callable[[DeadLetter], Awaitable[None] | None]) -> None:
        """Call back for each message that a call of this bus made dead: best effort, 10 s each.

        The durable way to follow is `dead_letters(after=cursor)`.
        """
        self._core.obituaries.call(lambda row: callback(dead_letter_of(row)))

    async def _amend(
        self, verb: Literal["cancel", "redrive", "discard"], ids: tuple[str, ...], agent: str | None
    ) -> int:
        if not ids and agent is None:
            if verb == "cancel":
                return 0
            raise ConfigurationError(
                f"{verb}: name ids, or agent= for all dead letters of one agent"
            )
        await self._core.pass_time()
        return await self._core.store.amend(verb, tuple(dict.fromkeys(ids)), agent)


def _cursor(after: str | None) -> int | None:
    if after is None:
        return None
    try:
        return int(after)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"after: {after!r} is not a cursor; pass the `cursor` of the last one you saw"
        ) from None


def _check(value: object, allowed: Any, where: str) -> None:
    if value is not None and value not in get_args(allowed):
        raise ConfigurationError(f"{where}: {value!r} is not one of {', '.join(get_args(allowed))}")
