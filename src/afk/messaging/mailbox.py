"""An agent's mailbox on the bus."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from inspect import iscoroutinefunction, isroutine
from typing import Any, Generic, Unpack

from msgspec.structs import replace

from .core import Core
from .delivery import HANDLING_SECONDS, Delivery, describe
from .errors import ConfigurationError, LeaseLostError
from .lifecycle import Dead, Done, RetryPolicy, parse_token
from .listening import deadline_of
from .log import ids, log
from .messages import BROADCAST, AgentMessage, InternalA2AEnvelope, check_name
from .posting import ask, post, post_copies
from .receipts import Receipt
from .records import Record, decode
from .sending import Options, SendOptions, compose
from .settings import LEAST_SECONDS, check_number
from .store import Leased, Query, Row, Turn
from .views import ENVELOPES, LETTERS, M, View
from .watching import watched
from .worker import Handler, Work, Worker


class Mailbox(Generic[M]):
    """One agent's name on the bus: what it sends comes from it, what is sent to it waits here."""

    def __init__(self, core: Core, name: str, view: View[M], content_type: Any = None) -> None:
        self._core = core
        self._view = view
        self._type = content_type
        self.name = name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    # -- sending -------------------------------------------------------------------------

    async def send(
        self, recipient: str, content: Any, **options: Unpack[SendOptions]
    ) -> Receipt[M]:
        """Send to one agent. When this returns, the message is kept as the receipt says.

        ttl, delay: seconds. Raises UnknownAgentError, InvalidMessageError, MailboxFullError,
        IdempotencyConflictError (nothing stored), StoreError (outcome unknown).
        """
        chosen = Options(**options)
        record = compose(self.name, recipient, content, chosen)
        return await post(self._core, self._view, record, ttl=chosen.ttl, delay=chosen.delay)

    async def broadcast(self, content: Any, **options: Unpack[SendOptions]) -> list[Receipt[M]]:
        """Send a copy to every registered agent but this one, in one step."""
        chosen = Options(**options)
        record = compose(self.name, BROADCAST, content, chosen)
        return await post_copies(self._core, self._view, record, ttl=chosen.ttl, delay=chosen.delay)

    async def request(
        self, recipient: str, content: Any, *, timeout: float = 30.0, **options: Unpack[SendOptions]
    ) -> M:
        """Send, and wait up to `timeout` s for the answer.

        Raises RequestTimeoutError (its `.receipt.result()` reads a late answer) and
        RequestFailedError (rejected, dead or cancelled), besides what `send` raises.
        """
        chosen = Options(**options)
        record = compose(self.name, recipient, content, chosen, kind="request")
        return await ask(self._core, self._view, record, timeout, chosen)

    # -- receiving -----------------------------------------------------------------------

    async def receive(self, timeout: float | None = None) -> M | None:
        """The next message, acked once it is in the caller's hands; None after `timeout` s."""
        take = self._type is None  # what must still be decoded is not settled before
        found = await self._next(timeout, self._core.settings.lease, take=take)
        if found is None:
            return None
        leased, _, message = found
        if leased.token is not None:
            self._core.settle_later(Turn(token=leased.token, outcome=Done()))
        return message

    async def claim(
        self, timeout: float | None = None, *, lease: float | None = None
    ) -> Delivery[M] | None:
        """The next message under a lease of `lease` s, yours to settle; None after `timeout` s.

        The lease is not renewed by itself: `extend` it, or use `async with`.
        """
        if lease is None:
            lease = self._core.settings.lease
        else:
            check_number("lease", lease, LEAST_SECONDS)
        found = await self._next(timeout, lease)
        if found is None:
            return None
        return Delivery(self._core, self._view, *found, lease, self._core.settings.retry)

    async def _next(
        self, timeout: float | None, lease: float, *, take: bool = False
    ) -> tuple[Leased, Record, M] | None:
        """The next message that can be read, within one timeout whatever is buried on the way."""
        deadline = deadline_of(timeout)
        while True:
            batch = await self._core.claim(self.name, deadline=deadline, lease=lease, take=take)
            if not batch:
                return None
            found = self._read(batch[0])
            if found is not None:
                return found

    async def resume(self, token: str) -> Delivery[M]:
        """The delivery of this token, to settle what another call or process claimed."""
        try:
            message_id, fence = parse_token(token)
        except ValueError as error:
            raise LeaseLostError(str(error)) from None
        row = await self._core.row(message_id)
        if row is None or row.body is None or row.fence != fence or row.mailbox != self.name:
            raise LeaseLostError("this delivery was settled before, or its lease went to another")
        leased = Leased(
            token=token,
            id=row.id,
            mailbox=row.mailbox,
            body=row.body,
            attempt=row.attempt,
            redrives=row.redrives,
        )
        settings = self._core.settings
        delivery = self._open(leased, settings.lease, settings.retry)
        if delivery is None or row.state in ("done", "dead", "cancelled"):
            raise LeaseLostError("this delivery was settled before")
        return delivery

    async def deliveries(self, *, lease: float | None = None) -> AsyncGenerator[Delivery[M], None]:
        """Each next message, under a lease; use `async with` on it, or settle it yourself."""
        while True:
            delivery = await self.claim(lease=lease)
            if delivery is not None:
                yield delivery

    async def serve(
        self,
        handler: Handler[M],
        *,
        concurrency: int = 1,
        lease: float | None = None,
        timeout: float = HANDLING_SECONDS,
        grace: float = 10.0,
        retry: RetryPolicy | None = None,
    ) -> None:
        """Handle messages until cancelled.

        handler: `async def handler(delivery)`; a result that is not None is the answer. An
        exception, or `timeout` s passed, fails the attempt. Cancelled, it claims no more, lets
        running handlers finish for `grace` s, then cancels them and gives their messages back.
        """
        if not _is_async(handler):
            raise ConfigurationError(f"handler: an async function is needed, not {handler!r}")
        settings = self._core.settings
        work = Work(
            concurrency=concurrency,
            lease=settings.lease if lease is None else lease,
            timeout=timeout,
            grace=grace,
            retry=retry or settings.retry,
        )
        if watchers := self._core.watchers:
            handler = watched(handler, watchers, timeout)
        await Worker(self._core, self.name, self._open, handler, work).run()

    def _open(self, leased: Leased, lease: float, policy: RetryPolicy) -> Delivery[M] | None:
        """A claimed message as a delivery; what cannot be read is buried on the way."""
        found = self._read(leased)
        return None if found is None else Delivery(self._core, self._view, *found, lease, policy)

    def _read(self, leased: Leased) -> tuple[Leased, Record, M] | None:
        try:
            record = decode(leased.body)
            if leased.redrives:
                record = replace(record, hops=0)
            message = self._view.read(record, self.name, self._type)
        except Exception as error:  # noqa: BLE001 - a type may raise anything when it is made
            text = str(error) if isinstance(error, ValueError) else describe(error)
            of = ids(self.name, leased.id, attempt=leased.attempt)
            log.warning("%s: message %s cannot be read: %s", self.name, leased.id, text, extra=of)
            self._core.settle_later(Turn(token=leased.token, outcome=Dead("undecodable", text)))
            return None
        return leased, record, message

    # -- looking -------------------------------------------------------------------------

    async def peek(self, limit: int = 100) -> list[M]:
        """What waits, in delivery order, changing nothing; not what is scheduled or leased."""
        rows = await self._core.browse(
            Query(mailbox=self.name, state="pending", order="delivery", limit=limit)
        )
        return [message for row in rows if (message := self._shown(row)) is not None]

    def _shown(self, row: Row) -> M | None:
        """The message of a row; None if its body is gone or cannot be read."""
        if row.body is None:
            return None
        try:
            return self._view.read(decode(row.body), self.name, None)
        except ValueError:
            of = ids(self.name, row.id, attempt=row.attempt)
            log.warning("message %s cannot be read; it is buried when claimed", row.id, extra=of)
            return None

    async def message_count(self) -> int:
        """How many messages wait; not what is scheduled or leased."""
        await self._core.pass_time()
        stats = (await self._core.store.counts(self.name)).get(self.name)
        if stats is None:
            raise await self._core.unknown(self.name)
        return stats.pending["all"]


def _is_async(handler: object) -> bool:
    """Whether calling it gives an awaitable, as far as can be told: a lambda cannot say."""
    if isroutine(handler) and getattr(handler, "__name__", "") != "<lambda>":
        return iscoroutinefunction(handler)
    return callable(handler)


class AgentMailbox(Mailbox[AgentMessage]):
    """A mailbox of letters."""

    def __init__(self, core: Core, name: str, content_type: Any = None) -> None:
        super().__init__(core, check_name(name, "name"), LETTERS, content_type)


class A2AMailbox(Mailbox[InternalA2AEnvelope]):
    """A mailbox of envelopes."""

    def __init__(self, core: Core, name: str, content_type: Any = None) -> None:
        super().__init__(core, check_name(name, "name"), ENVELOPES, content_type)
