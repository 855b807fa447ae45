"""The one way to the store: opening, order, refusals as errors, waiting."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from .errors import StoreError, UnknownAgentError, UsageError
from .lifecycle import GIVE_BACK, RetryPolicy
from .listening import Listening, in_time
from .log import ids, log
from .obituaries import Obituaries
from .overdue import Deadline
from .refusals import error_of
from .sending import Sent
from .settings import Settings
from .store import (
    FATE,
    MAIL,
    A2ADeliveryStore,
    Batch,
    Bell,
    Claim,
    Leased,
    OutboxStore,
    Query,
    Roster,
    Row,
    Turn,
    Verdict,
)
from .watching import Watched, Watcher

YIELD_EVERY = 64

FLUSH_BACKOFF = RetryPolicy(base=0.5, cap=5.0, jitter="none")

in_transaction: ContextVar[set[Core]] = ContextVar("afk_in_transaction")
"""The cores whose stores are inside a caller's transaction here: another call would wait for it.
A set that the block empties, since tasks started in the block keep a copy of the context."""

_SWEEP = Claim(mailbox="", limit=0)


class Core:
    """What mailboxes, workers and the bus share: one store, its settings, one event loop."""

    def __init__(self, store: A2ADeliveryStore, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Lock | None = None
        self._closing = asyncio.Lock()
        self._opened = self._closed = False
        self._later: list[Turn] = []
        self._flushing: set[asyncio.Task[None]] = set()
        self._flush_due: asyncio.Handle | None = None
        self._failures = self._claims = 0
        self._no_claims = asyncio.Event()
        self._listening: set[Bell] = set()
        self.obituaries = Obituaries(store)
        self._sent = 0
        self.roster: Roster | None = None
        """The directory as it was last seen."""
        self.watchers: tuple[Watcher, ...] = ()

    def watch(self, watcher: Watcher) -> None:
        """From now on, have it see what goes to the store and what comes from there."""
        self.store = Watched(self.store, watcher)
        self.watchers += (watcher,)

    # -- opening and closing -------------------------------------------------------------

    def _entered(self) -> bool:
        """Whether `enter` has nothing to do and nothing to refuse."""
        return (
            self._opened
            and not self._closed
            and self._loop is asyncio.get_running_loop()
            and self not in in_transaction.get(())
        )

    async def enter(self) -> None:
        """Be open, in the right loop, and not inside a transaction that would deadlock."""
        if self._entered():
            return
        await self._ready()
        if self in in_transaction.get(()):
            raise UsageError(
                "a bus call inside delivery.transaction() would wait for that transaction;"
                " use the delivery's own send, or call it after the block"
            )

    async def _ready(self) -> None:
        self._refuse_if_closed()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise UsageError(
                    "this bus belongs to another event loop, or to the process this one was forked"
                    " from; make one bus per loop"
                )
            self._loop = loop
            self._opening = asyncio.Lock()
        if not self._opened and self._opening is not None:
            async with self._opening:
                if not (self._opened or self._closed):
                    await self.store.open()
                    self._opened = not self._closed
                    if self._closed:  # meanwhile, and nothing was open then
                        await self.store.close()
            self._refuse_if_closed()

    async def close(self) -> None:
        """Flush acks, drain callbacks, release the store. Idempotent."""
        async with self._closing:  # a second caller waits for the first
            if self._closed:
                return
            ours = self._loop is asyncio.get_running_loop()
            try:
                if ours:
                    await self._drain()  # still open: a callback may use the bus
            finally:
                self._closed = True
                for bell in self._listening:
                    bell.ring()
                try:
                    if ours:
                        await self._end_calls()
                finally:
                    if self._opened:
                        await self.store.close()

    async def _end_calls(self) -> None:
        """Wait for what was begun before the end: an opening, claims, and their acks."""
        if self._opening is not None:
            async with self._opening:
                pass
        while self._claims:
            self._no_claims.clear()
            await self._no_claims.wait()
        await self._drain()
        if self._later:
            log.warning("%d message(s) could not be settled, and will come again", len(self._later))

    async def _drain(self) -> None:
        if self._flushing:
            await asyncio.gather(*self._flushing, return_exceptions=True)
        await self._flush()
        await self.obituaries.drain()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise UsageError("this bus is closed; connect again")

    async def enter_to_send(self, sent: Sent) -> None:
        """Be open by the deadline of what is to be sent."""
        try:
            await in_time(self.store, sent.deadline, self.enter())
        except StoreError as error:
            raise StoreError(str(error), message=sent.message, key=sent.key) from error

    # -- writing -------------------------------------------------------------------------

    async def put(self, turn: Turn, sent: Sent | None = None) -> Verdict:
        """One turn, after what was to be settled later; a refusal is raised as its error."""
        verdict = await self.try_put(turn, sent)
        if verdict.refusal is not None:
            await self.insist(verdict, sent.deadline if sent else None)
        return verdict

    async def put_within(self, connection: Any, turn: Turn, sent: Sent) -> Verdict:
        """One turn in the transaction open on the caller's connection."""
        store = self.store
        if not (store.capabilities.outbox and isinstance(store, OutboxStore)):
            raise UsageError(
                "connection: this store cannot send inside a transaction of yours;"
                " postgresql:// can"
            )
        try:
            await self._ready()
            verdict = await store.put_within(connection, turn)
        except StoreError as error:
            raise StoreError(str(error), message=sent.message, key=sent.key) from error
        await self.conclude(verdict)
        return verdict

    async def conclude(self, verdict: Verdict) -> None:
        """What a transaction's commit said: report, or raise."""
        self._note(verdict)
        await self.insist(verdict)

    async def insist(self, verdict: Verdict, deadline: Deadline | None = None) -> None:
        """Raise a refusal as its error."""
        if verdict.refusal is not None:
            if verdict.refusal.kind == "unknown":
                raise await self.unknown(verdict.refusal.mailbox, deadline)
            raise error_of(verdict.refusal)

    def _note(self, verdict: Verdict) -> None:
        if verdict.died:
            self.obituaries.report(verdict.died)
        for accepted in verdict.accepted:
            if accepted.ignored:
                of = ids(message_id=accepted.id)
                log.warning("a second answer to a request was ignored: %s", accepted.id, extra=of)

    async def try_put(self, turn: Turn, sent: Sent | None = None) -> Verdict:
        """One turn; a refusal is returned."""
        self._sent += len(turn.sends)
        deadline = sent.deadline if sent else None
        if self._sent >= YIELD_EVERY and deadline is None:  # who has one will wait for an answer
            self._sent = 0
            await asyncio.sleep(0)  # a receiver beside a busy sender gets its turn
        try:
            if deadline is not None or self._later or not self._entered():
                verdict = await in_time(self.store, deadline, self._put_now(turn))
            else:
                (verdict,) = await self.store.put((turn,))
                self._failures = 0
        except StoreError as error:
            if sent is None:
                raise
            raise StoreError(str(error), message=sent.message, key=sent.key) from error
        self._note(verdict)
        return verdict

    async def settle(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
        """These turns in one call, after what was to be settled later; what became of each."""
        await self.enter()
        verdicts = await self._put(*turns)
        for verdict in verdicts:
            self._note(verdict)
        return verdicts

    async def _put_now(self, turn: Turn) -> Verdict:
        await self.enter()
        return (await self._put(turn))[0]

    async def _put(self, *turns: Turn) -> tuple[Verdict, ...]:
        """These, after what was to be settled later; what fails of that is tried again."""
        later, self._later = self._later, []
        try:
            verdicts = await self.store.put((*later, *turns))
        except (Exception, asyncio.CancelledError) as error:
            self._later = later + self._later  # a second settle is refused, so none is doubled
            if self._later:
                self._failures += isinstance(error, Exception)
                self._flush_after(FLUSH_BACKOFF.delay(self._failures, 0) if self._failures else 0)
            raise
        self._failures = 0
        if later:
            self._check_later(later, verdicts)
        return verdicts[len(later) :]

    def settle_later(self, turn: Turn) -> None:
        """Settle with the next call, or at the end of this tick: nobody waits for it."""
        self._later.append(turn)
        self._flush_after(0)

    def _flush_after(self, seconds: float) -> None:
        if self._flush_due is None:
            loop, flush = asyncio.get_running_loop(), self._start_flush
            self._flush_due = loop.call_later(seconds, flush) if seconds else loop.call_soon(flush)

    def _start_flush(self) -> None:
        if self._flush_due is not None:
            self._flush_due.cancel()
            self._flush_due = None
        if self._later and not self._closed:
            task = asyncio.create_task(self._flush())
            self._flushing.add(task)
            task.add_done_callback(self._flushing.discard)

    async def _flush(self) -> None:
        if self._later:
            try:
                await self._put()
            except StoreError as error:
                log.warning("acks were not stored, and are tried again: %s", error)

    def _check_later(self, later: list[Turn], verdicts: tuple[Verdict, ...]) -> None:
        for turn, verdict in zip(later, verdicts, strict=False):  # the rest is not of these
            self.obituaries.report(verdict.died)
            if verdict.refusal is not None:
                of = ids(message_id=(turn.token or "").rpartition(".")[0])
                log.warning("a message was settled too late: its lease was lost", extra=of)

    async def _before_read(self) -> None:
        """Ready, and everything settled before this call is on its way to the store first."""
        await self.enter()
        if self._later:
            self._start_flush()
            await asyncio.sleep(0)  # the flush starts now, so it takes effect first
            self._refuse_if_closed()

    async def unknown(self, name: str, deadline: Deadline | None = None) -> UnknownAgentError:
        """The error for an unregistered name, with the nearest registered ones, if the store names
        them in time."""
        import difflib

        names: Iterable[str] = ()
        with suppress(StoreError):
            names = (await in_time(self.store, deadline, self.store.agents())).boxes
        return UnknownAgentError(name, difflib.get_close_matches(name, names))

    # -- claiming ------------------------------------------------------------------------

    async def claim(
        self,
        mailbox: str,
        *,
        limit: int = 1,
        deadline: Deadline | None = None,
        lease: float | None = None,
        hold: float | None = None,
        policy: RetryPolicy | None = None,
        take: bool = False,
    ) -> tuple[Leased, ...]:
        """Up to `limit` messages, as soon as there is one; none once the deadline has passed.

        Nothing is awaited between the store's answer and the return.
        """
        claim = Claim(
            mailbox=mailbox,
            limit=limit,
            lease=self.settings.lease if lease is None else lease,
            hold=hold,
            policy=policy or self.settings.retry,
            take=take,
            chance=random.random(),
        )
        instant = self.store.capabilities.instant
        over = deadline is not None and deadline.left() <= 0
        if over or instant:
            leased = await self._claim(claim, deadline)
            if leased or over:
                return leased
        # The bell is hung before the store is asked: what comes in between is not missed. Where
        # nothing can come in between, it is hung only when there is something to wait for.
        await in_time(self.store, deadline, self.enter())
        with self.listening(MAIL + mailbox) as topic:
            while not instant or await topic.heard(deadline):
                leased = await self._claim(claim, deadline)
                if leased or not (instant or await topic.heard(deadline)):
                    return leased
            return ()

    async def _claim(self, claim: Claim, deadline: Deadline | None = None) -> tuple[Leased, ...]:
        self._claims += 1
        try:
            batch = await in_time(self.store, deadline, self._claim_now(claim))
        except UnknownAgentError:
            raise await self.unknown(claim.mailbox, deadline) from None
        finally:
            self._claims -= 1
            if self._closed and not self._claims:
                self._no_claims.set()
        if batch.died:
            self.obituaries.report(batch.died)
        if self._closed and any(leased.token for leased in batch.leased):
            for leased in batch.leased:  # nobody could settle it any more
                self.settle_later(Turn(token=leased.token, outcome=GIVE_BACK))
            self._refuse_if_closed()
        return batch.leased

    async def _claim_now(self, claim: Claim) -> Batch:
        if self._later or not self._entered():
            await self._before_read()
        return await self.store.claim(claim)

    async def pass_time(self) -> None:
        """Have the store bring about what only time does."""
        await self._claim(_SWEEP)

    def listening(self, topic: str) -> Listening:
        """A context in which the topic can be waited for."""
        return Listening(self.store, topic, self._listening)

    # -- reading -------------------------------------------------------------------------

    async def browse(self, query: Query) -> list[Row]:
        """Rows as they are now, after time was let pass."""
        await self.pass_time()
        return await self.store.browse(query)

    async def row(self, message_id: str) -> Row | None:
        """The row of one message; time is let pass only if that has ended it."""
        await self._before_read()
        rows = await self.store.browse(Query(ids=(message_id,)))
        if rows and rows[0].state == "dead" and rows[0].settled_at is None:
            rows = await self.browse(Query(ids=(message_id,)))
        return rows[0] if rows else None

    async def fate(
        self, message_id: str, until: Callable[[Row | None], bool], deadline: Deadline | None
    ) -> tuple[Row | None, bool]:
        """The message's row once `until` holds for it; (row, False) at the deadline."""
        await in_time(self.store, deadline, self.enter())
        with self.listening(FATE + message_id) as topic:
            while True:
                row = await in_time(self.store, deadline, self.row(message_id))
                if until(row):
                    return row, True
                if not await topic.heard(deadline):
                    return row, False

    async def agents(self) -> Roster:
        """The directory now."""
        await self._before_read()
        self.roster = await self.store.agents()
        return self.roster
