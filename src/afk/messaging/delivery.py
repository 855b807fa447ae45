"""A message in a consumer's hands: settle it, or send in the same step."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Generic, Unpack

from msgspec.structs import replace

from .core import Core, in_transaction
from .errors import LeaseLostError, MessagingError, StoreError, UsageError
from .lifecycle import (
    GIVE_BACK,
    Again,
    Dead,
    DeadReason,
    Done,
    Extend,
    Outcome,
    RetryPolicy,
    after_failure,
    sub_request_key,
)
from .listening import deadline_of
from .log import ids
from .messages import MessageType
from .receipts import request
from .records import Record
from .sending import Options, SendOptions, Sent, compose, following, seconds, to_send
from .settings import check_number
from .store import Leased, Send, TransactionalStore, Turn
from .views import M, View
from .watching import Ended, handling

current: ContextVar[Delivery[Any] | None] = ContextVar("afk_current_delivery", default=None)
"""The delivery being handled here: what is sent meanwhile follows from it."""

HANDLING_SECONDS = 3600.0

UNANSWERED: frozenset[DeadReason | None] = frozenset({"expired", "exhausted", "unregistered"})
"""What ends a request although nobody decided against it."""


class Retry(Exception):
    """Raised while handling: try this message again after `delay` s (default: the retry policy's).

    counts=False gives the attempt back, for a message that merely came too early.
    """

    def __init__(self, delay: float | None = None, counts: bool = True) -> None:
        super().__init__(f"retry after {delay} s" if delay is not None else "retry")
        self.delay = seconds(delay, "delay")
        self.counts = counts


class Reject(Exception):
    """Raised while handling: this message can never succeed; a dead letter with this error."""

    def __init__(self, error: object = "") -> None:
        super().__init__(str(error))


class Delivery(Generic[M]):
    """A leased message. As a context manager: ack on success, nack on exception (`Retry` and
    `Reject` do what they say, and end there), and the lease is renewed meanwhile."""

    _ended: Ended | None = None

    def __init__(
        self,
        core: Core,
        view: View[M],
        leased: Leased,
        record: Record,
        message: M,
        lease: float,
        policy: RetryPolicy,
    ) -> None:
        self._core = core
        self._view = view
        self._record = record
        self._lease = lease
        self._policy = policy
        self._leased = leased
        self._sends: list[Send] = []
        self._calls = 0
        self._settled = False
        self._context: Token[Delivery[Any] | None] | None = None
        self.message = message
        """The message, as the mailbox shows it."""
        self.attempt = leased.attempt
        """Which attempt this is, from 1."""
        self.token = leased.token or ""
        """The fencing token: pass it on to settle elsewhere (`mailbox.resume`)."""

    @property
    def settled(self) -> bool:
        """Whether this object has settled it."""
        return self._settled

    @property
    def record(self) -> Record:
        """The record this message is a view of."""
        return self._record

    @property
    def ids(self) -> dict[str, Any]:
        """What names it in a log record."""
        leased = self._leased
        return ids(leased.mailbox, leased.id, self._record.correlation_id, leased.attempt)

    # -- settling ------------------------------------------------------------------------

    async def ack(self) -> None:
        """Done: settle it, and let what was sent through this delivery leave, in one step."""
        await self._settle(Done(), tuple(self._sends))

    async def nack(self, error: object = "", *, delay: float | None = None) -> None:
        """Failed: try again after `delay` seconds (default: the retry policy's), or give up."""
        await self._settle(self.failure(error, delay))

    async def reject(self, error: object = "") -> None:
        """Never try again: a dead letter with reason `rejected`."""
        await self._settle(Dead("rejected", str(error)))

    async def retry(self, delay: float | None = None, *, counts: bool = True) -> None:
        """Try again after `delay` s (default: the retry policy's); an attempt that does not
        count is given back."""
        await self._settle(self.again(delay, counts=counts))

    async def give_back(self) -> None:
        """Back to its place, as if it had not been taken."""
        await self._settle(GIVE_BACK)

    async def extend(self, seconds: float) -> None:
        """The lease now ends `seconds` from now."""
        check_number("seconds", seconds, 0)
        self._refuse_if_settled()
        await self._core.put(Turn(token=self.token, outcome=Extend(seconds)))

    async def hold(self, seconds: float) -> None:
        """Have the store renew the lease for up to `seconds`, as long as this process lives."""
        check_number("seconds", seconds, 0)
        self._refuse_if_settled()
        await self._core.put(Turn(token=self.token, outcome=Extend(self._lease, hold=seconds)))

    def give_back_later(self) -> None:
        """Give it back without waiting for the store: for when this task is being cancelled."""
        if not self._settled:
            self._settled = True
            self._core.settle_later(self.turn(GIVE_BACK))

    async def _settle(self, outcome: Outcome, sends: tuple[Send, ...] = ()) -> None:
        self._refuse_if_settled()
        await self._core.put(self.turn(outcome, sends))
        self._settled = True

    def _refuse_if_settled(self) -> None:
        if self._settled:
            raise LeaseLostError("this delivery was settled before")

    # -- for who settles it with others, as a worker does --------------------------------

    def failure(self, error: object, delay: float | None = None) -> Outcome:
        """What `nack` comes to."""
        delay = seconds(delay, "delay")
        return after_failure(self.attempt, self._policy, str(error), random.random(), delay)

    def again(self, delay: float | None, *, counts: bool) -> Outcome:
        """What `retry` comes to."""
        if counts:
            return self.failure("the handler asked to retry", delay)
        delay = seconds(delay, "delay")
        if delay is None:
            delay = self._policy.delay(self.attempt, random.random())
        return Again(delay, counts=False)

    def turn(self, outcome: Outcome, sends: tuple[Send, ...] = ()) -> Turn:
        """What a store is to do to settle it so."""
        return Turn(token=self.token, outcome=outcome, sends=sends)

    def concluded(self, result: Any) -> Turn | None:
        """What settles a handler that returned: its result, if any, is the answer. None if it has
        settled, and answers nothing.

        An answer that cannot be stored becomes a dead letter; an answer is not answered.
        However often the turn is tried, the answer is the same message.
        """
        sends = () if result is None or self._record.kind == "response" else (self._answer(result),)
        if not self._settled:
            return self.turn(Done(), (*self._sends, *sends))
        return Turn(sends=sends) if sends else None  # it ended in the handler's transaction

    def was_settled(self) -> None:
        """The store has taken what settles it."""
        self._settled = True

    # -- sending in the same turn --------------------------------------------------------

    async def send(self, recipient: str, content: Any, **options: Unpack[SendOptions]) -> M:
        """Send together with the ack: the message that will leave then; a nack drops it."""
        chosen = Options(**options)
        record = self._compose(recipient, content, chosen)
        return self._add(record, chosen)

    async def reply(self, content: Any, **fields: Any) -> M:
        """Answer together with the ack."""
        answer = self._view.answer(self.message, content, **fields)
        return self._add(self._view.write(answer), Options())

    def _answer(self, result: Any) -> Send:
        made = isinstance(result, self._view.kind)
        message = result if made else self._view.answer(self.message, result)
        return self._order(self._view.write(message), Options(), alone=True)

    async def request(
        self, recipient: str, content: Any, *, timeout: float = 30.0, **options: Unpack[SendOptions]
    ) -> M:
        """Ask another agent while handling this: sent at once, once, however often this is tried.

        A repeated attempt gets the first answer, whatever it asks now; if there was none, the
        request is made anew.
        """
        self._calls += 1
        key = sub_request_key(self._record.id, self._leased.redrives, self._calls)
        chosen = replace(Options(idempotency_key=key), **options)
        record = self._compose(recipient, content, chosen, "request")
        ttl = timeout if chosen.ttl is None else chosen.ttl
        order = to_send(record, self._core.settings, ttl=ttl, delay=chosen.delay, compare=False)
        sent = Sent(record, self._view, deadline_of(timeout))
        turn = Turn(sends=(order,))
        return await request(self._core, self._view, turn, sent, timeout, self._revive)

    async def _revive(self, request_id: str) -> None:
        """Put a request of an earlier attempt back in its mailbox if it ended with no answer."""
        row = await self._core.row(request_id)
        if row is not None and row.answer is None and row.reason in UNANSWERED:
            await self._core.store.amend("redrive", (request_id,), None)

    def _compose(
        self, recipient: str, content: Any, options: Options, kind: MessageType = "event"
    ) -> Record:
        record = compose(self._leased.mailbox, recipient, content, options, kind=kind)
        return following(record, self._record)

    def _add(self, record: Record, options: Options) -> M:
        if self._settled:
            raise LeaseLostError("this delivery was settled before; nothing more leaves with it")
        self._sends.append(self._order(record, options))
        return self._view.read(record, "", None)

    def _order(self, record: Record, options: Options, *, alone: bool = False) -> Send:
        return to_send(
            record, self._core.settings, ttl=options.ttl, delay=options.delay, alone=alone
        )

    # -- effects -------------------------------------------------------------------------

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """The store's connection, in a transaction: the caller's writes, what is sent through
        this delivery and the ack commit together when the block ends, or nothing does."""
        store = self._core.store
        if not (store.capabilities.transactions and isinstance(store, TransactionalStore)):
            raise UsageError(
                "this store has no transactions for handlers; use sqlite:// (or postgresql://),"
                " or make the effect idempotent"
            )
        self._refuse_if_settled()
        await self._core.enter()
        transaction = await store.begin()
        inside = {self._core, *in_transaction.get(())}
        mark = in_transaction.set(inside)
        before = len(self._sends)
        try:
            try:
                yield transaction.connection
            except BaseException:
                await transaction.rollback()
                raise
            finally:
                inside.clear()
                in_transaction.reset(mark)
            turn = Turn(token=self.token, outcome=Done(), sends=tuple(self._sends))
            await self._core.conclude(await transaction.commit(turn))
        except BaseException:
            del self._sends[before:]  # sent in what was undone: they must not leave later
            raise
        self._settled = True

    # -- as a context manager ------------------------------------------------------------

    async def __aenter__(self) -> Delivery[M]:
        try:
            await self.hold(HANDLING_SECONDS)
        except asyncio.CancelledError:
            self.give_back_later()  # the block is not entered, so nobody else will
            raise
        if self._core.watchers and current.get() is not self:
            self._ended = handling(self._core.watchers, self._leased, self._record)
        self._context = current.set(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if self._context is not None:
            current.reset(self._context)
        if self._ended is not None:
            self._ended(error)
        if self._settled:
            return False
        if error is None:
            await self._leave(self._ack_or_nack())
        elif isinstance(error, Retry):
            await self._leave(self.retry(error.delay, counts=error.counts))
            return True
        elif isinstance(error, Reject):
            await self._leave(self.reject(error))
            return True
        elif failed(error):
            await self._leave(self.nack(describe(error)))
        else:
            self.give_back_later()  # cancelled: no attempt is used, nothing is awaited
        return False

    async def _ack_or_nack(self) -> None:
        try:
            await self.ack()
        except (LeaseLostError, StoreError, UsageError):
            raise
        except MessagingError as refused:  # what it sent cannot be stored: the turn failed
            await self.nack(describe(refused))
            raise

    async def _leave(self, settling: Awaitable[None]) -> None:
        """Settle; if that does not happen, the lease is at least not held any longer."""
        try:
            await settling
        except asyncio.CancelledError:
            self.give_back_later()
            raise
        except StoreError:
            # Perhaps it was settled, so this may be refused; if not, the lease ends by itself.
            unheld = Extend(self._lease, hold=0.0)
            self._core.settle_later(Turn(token=self.token, outcome=unheld))
            raise


def failed(error: BaseException) -> bool:
    """Whether this ended the work by itself, and not because its task is being cancelled."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, Exception)


def describe(error: BaseException) -> str:
    """An exception in one line, as a dead letter shows it."""
    return f"{type(error).__name__}: {error}"[:2000]
