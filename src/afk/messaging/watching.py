"""Watching a bus: its way to the store, wrapped once. A bus that nobody watches is not wrapped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, Protocol, TypeVar

from msgspec import Struct

from .lifecycle import Again, Dead, Extend, Outcome
from .log import log
from .records import Record
from .store import (
    A2ADeliveryStore,
    Batch,
    Bell,
    Box,
    Capabilities,
    Claim,
    Leased,
    MailboxStats,
    Query,
    Roster,
    Row,
    Transaction,
    Turn,
    Verdict,
)

T = TypeVar("T")

Ended = Callable[[BaseException | None], None]
"""Told how something ended: with an error, or well."""

Told = Callable[[Sequence[Verdict] | BaseException], None]
"""Told what became of turns: a verdict for each, or one error for all."""


class Step(Struct, frozen=True):
    """A turn on its way to the store; the lease it is about, as far as this bus knows that."""

    turn: Turn
    leased: Leased | None


class Watcher(Protocol):
    """Sees what a bus does. All that it can change is the trace context of what is sent; an
    error of its own is logged and changes nothing."""

    def putting(self, steps: tuple[Step, ...]) -> tuple[tuple[Turn, ...], Told]:
        """Turns are about to be put: the same, perhaps with trace contexts, and whom to tell."""

    def claimed(self, claim: Claim, batch: Batch | Exception, seconds: float) -> None:
        """A claim has ended, after so many seconds."""

    def handling(self, leased: Leased, record: Record) -> Ended:
        """A message begins to be handled, in this task: whom to tell when that has ended."""


def verb(outcome: Outcome) -> str:
    """What the caller did to a delivery that ends like this."""
    match outcome:
        case Extend():
            return "extend"
        case Again(counts=False):
            return "give_back"
        case Again() | Dead(reason="exhausted"):
            return "nack"
        case Dead():
            return "reject"
    return "ack"


def handling(watchers: tuple[Watcher, ...], leased: Leased, record: Record) -> Ended:
    """Tell all watchers that a message begins to be handled, and later how that ended."""
    ends = [_safely(watcher.handling, leased, record) for watcher in watchers]

    def ended(error: BaseException | None) -> None:
        for end in reversed(ends):
            if end is not None:
                _safely(end, error)

    return ended


def watched(
    handler: Callable[[Any], Awaitable[Any]], watchers: tuple[Watcher, ...], timeout: float
) -> Callable[[Any], Awaitable[Any]]:
    """A handler for deliveries that tells the watchers; timeout: after which it is cancelled."""

    async def handle(delivery: Any) -> Any:
        end = handling(watchers, delivery._leased, delivery.record)
        started = time.monotonic()
        try:
            result = await handler(delivery)
        except BaseException as error:
            late = isinstance(error, asyncio.CancelledError)
            late = late and time.monotonic() - started >= timeout
            end(TimeoutError(f"the handler took longer than {timeout} s") if late else error)
            raise
        end(None)
        return result

    return handle


class Leases(dict[str, T]):
    """Something for each lease. The oldest is let go of: not every lease ends here."""

    MOST = 10_000

    def keep(self, token: str, value: T) -> None:
        """Keep this for a lease."""
        self[token] = value
        if len(self) > self.MOST:
            del self[next(iter(self))]


class Watched:
    """A store that tells a watcher of what is put and claimed."""

    def __init__(self, store: A2ADeliveryStore, watcher: Watcher) -> None:
        self._store: Any = store
        self._watcher = watcher
        self._leases: Leases[Leased] = Leases()
        self.poll = store.poll

    # -- what is told --------------------------------------------------------------------

    async def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
        """See the port; likewise below."""
        return await self._telling(turns, self._store.put)

    async def put_within(self, connection: Any, turn: Turn) -> Verdict:
        async def put(turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
            return (await self._store.put_within(connection, *turns),)

        return (await self._telling((turn,), put))[0]

    async def begin(self) -> Transaction:
        return _WatchedTransaction(await self._store.begin(), self._telling)

    async def claim(self, claim: Claim) -> Batch:
        started = time.perf_counter()
        try:
            batch: Batch = await self._store.claim(claim)
        except Exception as error:
            _safely(self._watcher.claimed, claim, error, time.perf_counter() - started)
            raise
        for leased in batch.leased:
            if leased.token is not None:
                self._leases.keep(leased.token, leased)
        _safely(self._watcher.claimed, claim, batch, time.perf_counter() - started)
        return batch

    async def _telling(
        self,
        turns: tuple[Turn, ...],
        put: Callable[[tuple[Turn, ...]], Awaitable[tuple[Verdict, ...]]],
    ) -> tuple[Verdict, ...]:
        steps = tuple(Step(turn, self._leases.get(turn.token or "")) for turn in turns)
        turns, tell = _safely(self._watcher.putting, steps) or (turns, _nobody)
        try:
            verdicts = await put(turns)
        except BaseException as error:
            _safely(tell, error)
            raise
        for turn in turns:
            if turn.token is not None and not isinstance(turn.outcome, Extend):
                self._leases.pop(turn.token, None)
        _safely(tell, verdicts)
        return verdicts

    # -- what is not ---------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        capabilities: Capabilities = self._store.capabilities
        return capabilities

    async def open(self) -> None:
        await self._store.open()

    async def close(self) -> None:
        await self._store.close()

    async def bind(self, box: Box) -> Box:
        bound: Box = await self._store.bind(box)
        return bound

    async def unbind(self, name: str) -> tuple[str, ...]:
        died: tuple[str, ...] = await self._store.unbind(name)
        return died

    async def agents(self) -> Roster:
        roster: Roster = await self._store.agents()
        return roster

    async def counts(self, mailbox: str | None = None) -> dict[str, MailboxStats]:
        counts: dict[str, MailboxStats] = await self._store.counts(mailbox)
        return counts

    async def browse(self, query: Query) -> list[Row]:
        rows: list[Row] = await self._store.browse(query)
        return rows

    async def amend(
        self, verb: Literal["cancel", "redrive", "discard"], ids: tuple[str, ...], agent: str | None
    ) -> int:
        changed: int = await self._store.amend(verb, ids, agent)
        return changed

    def listen(self, topic: str) -> Bell:
        bell: Bell = self._store.listen(topic)
        return bell


class _WatchedTransaction:
    def __init__(self, inner: Transaction, telling: Callable[..., Awaitable[Any]]) -> None:
        self._inner = inner
        self._telling = telling

    @property
    def connection(self) -> Any:
        return self._inner.connection

    async def commit(self, turn: Turn) -> Verdict:
        async def put(turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
            return (await self._inner.commit(*turns),)

        verdicts: tuple[Verdict, ...] = await self._telling((turn,), put)
        return verdicts[0]

    async def rollback(self) -> None:
        await self._inner.rollback()


def _nobody(_: Sequence[Verdict] | BaseException) -> None:
    """Nobody is to be told."""


def _safely(call: Callable[..., T], *args: Any) -> T | None:
    try:
        return call(*args)
    except Exception:  # noqa: BLE001 - whoever looks on changes nothing
        log.exception("a watcher of the bus failed; what it saw went on")
        return None
