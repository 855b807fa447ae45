"""One connection, through which all that this process asks goes in its order.

What is asked while the server is at work leaves together when it has answered: many sends, acks
and claims are one call, one transaction. A lost connection is made anew. What was not sent waits
for that; what was under way, and is no mere look, has an unknown outcome.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from bisect import insort
from collections import deque
from collections.abc import Awaitable, Callable, Container
from operator import itemgetter
from typing import Any

from ...errors import ConfigurationError, StoreError, UsageError
from ...lifecycle import RetryPolicy
from ...log import log
from ...overdue import Watch
from ...store import Claim, Turn
from ..ending import ended
from . import faults
from .batches import Batch, News
from .gathering import gather
from .operations import Ask, Operation, Put, Take
from .session import Call, Session

BACKOFF = RetryPolicy(base=0.05, cap=1.0, jitter="none")
CLOSING_SECONDS = 2.0
PAUSE = 0.02
"""Seconds before what was in another transaction's way is asked again, at least."""


class Lane:
    """The way to the database.

    connect: makes a session, or raises what the driver does. head: the arguments every function
    begins with. patience: seconds an operation waits before it fails. held: the tokens whose
    leases are being renewed.
    """

    def __init__(
        self,
        shown: str,
        connect: Callable[[], Awaitable[Session]],
        head: Callable[[], tuple[Any, ...]],
        patience: float,
        news: News,
        held: Container[str],
    ) -> None:
        self._shown = shown
        self._connect = connect
        self._head = head
        self._patience = patience
        self._news = news
        self._held = held
        self._pid = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._outbox: deque[Operation] = deque()
        self._round: deque[Batch] = deque()
        self._later: list[tuple[float, Batch]] = []
        self._pending: dict[Operation, None] = {}
        self._watch = Watch(self._loop, self._give_up)
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._session: Session
        self._failures = 0
        self._trouble = "no connection yet"
        self._running: asyncio.Task[None] | None = None
        self._closed = False
        self.ordered: set[str] = set()
        """Mailboxes that are known to keep threads in order."""

    # -- life ----------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, or say why not: StoreError, ConfigurationError."""
        try:
            async with asyncio.timeout(self._patience):
                self._session = await self._connect_first()
        except TimeoutError:
            raise StoreError(
                f"{self._shown} cannot be reached within {self._patience} s ({self._trouble});"
                " nothing was stored"
            ) from None
        self._running = asyncio.create_task(self._run())

    async def _connect_first(self) -> Session:
        while True:
            try:
                return await self._connect()
            except faults.DRIVER as error:
                self._failures += 1
                self._trouble = faults.passing(error) or str(error)
                if faults.passing(error) is None:  # nobody is there, or a password is wrong
                    text = f"{self._shown} cannot be used: {self._trouble}"
                    raise StoreError(f"{text}; nothing was stored") from error
                await asyncio.sleep(BACKOFF.delay(self._failures, 0))

    async def close(self) -> None:
        """Let what is on its way arrive, then let go of the connection."""
        if self._running is None or self._closed:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                while self._pending:
                    self._idle.clear()
                    await self._idle.wait()
        self._closed = True
        await ended(self._running)
        if self._pending:
            self._session.drop()  # its state is not certain
        await self._session.leave()
        self._watch.cancel()
        for operation in list(self._pending):
            self._fail(operation, f"{self._shown}: closed before it answered")

    # -- asking --------------------------------------------------------------------------

    async def put(self, turns: tuple[Turn, ...]) -> Any:
        """Verdicts."""
        put = Put(turns, self._loop.create_future(), self._loop.time())
        return await self._answer(put)

    async def take(self, claim: Claim, undo: Callable[[Any], None]) -> Any:
        """What a claim took. Cancelled, it is not sent if it was not yet; what it took is given to
        `undo` before anything that is asked for later is sent."""
        take = Take(claim, undo, self._loop.create_future(), self._loop.time())
        try:
            return await self._answer(take)
        except asyncio.CancelledError:
            future = take.future
            if future.done() and not future.cancelled() and future.exception() is None:
                undo(future.result())  # answered in the tick of the cancellation
            raise

    async def ask(self, name: str, *args: Any, repeatable: bool = False) -> list[Any]:
        """The rows of a function."""
        ask = Ask(Call(name, *args), repeatable, self._loop.create_future(), self._loop.time())
        rows: list[Any] = await self._answer(ask)
        return rows

    def first(self, turns: tuple[Turn, ...]) -> None:
        """Before all that waits, with nobody waiting for it."""
        if self._closed:
            return
        put = Put(turns, self._loop.create_future(), self._loop.time())
        put.future.add_done_callback(_note_failure)
        self._outbox.appendleft(put)
        self._expect(put)

    async def _answer(self, operation: Operation) -> Any:
        if os.getpid() != self._pid:
            raise UsageError("this bus was opened before a fork; connect again in the child")
        if self._closed:
            raise UsageError(f"{self._shown} is closed")
        self._outbox.append(operation)
        self._expect(operation)
        try:
            return await operation.future
        finally:
            if operation.future.cancelled() and not operation.sent:
                self._forget(operation)
                with contextlib.suppress(ValueError):
                    self._outbox.remove(operation)

    def _expect(self, operation: Operation) -> None:
        self._pending[operation] = None
        self._wake.set()
        self._watch.until(operation.since + self._patience)

    def _forget(self, operation: Operation) -> None:
        self._pending.pop(operation, None)
        if not self._pending:
            self._idle.set()

    def _fail(self, operation: Operation, text: str) -> None:
        operation.fail(StoreError(text))
        self._forget(operation)

    def _give_up(self) -> None:
        """Fail what has waited too long; a connection that does not answer is let go."""
        for operation in list(self._pending):
            end = operation.since + self._patience
            if not self._watch.overdue(end):
                self._watch.until(end)
                return
            if operation.sent:
                what = f"did not answer within {self._patience} s; the outcome is unknown"
                self._trouble = "it does not answer"
                self._session.drop()
            else:
                what = f"cannot be used now ({self._trouble}); nothing was stored"
                with contextlib.suppress(ValueError):
                    self._outbox.remove(operation)
            self._fail(operation, f"{self._shown} {what}")

    # -- at work -------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                await self._serve()
            except Exception:  # noqa: BLE001 - whatever it is, the lane must live on
                log.exception("%s: the lane failed", self._shown)
                self._session.drop()
            await self._session.leave()
            self._session = await self._reconnect()

    async def _reconnect(self) -> Session:
        while True:
            self._failures += 1
            await asyncio.sleep(BACKOFF.delay(self._failures, 0))
            try:
                async with asyncio.timeout(self._patience):
                    return await self._connect()
            except ConfigurationError as error:
                self._trouble = str(error)
            except Exception as error:  # noqa: BLE001 - likewise
                self._trouble = faults.passing(error) or str(error) or "it does not answer"
            log.warning("%s: not connected: %s", self._shown, self._trouble)

    async def _serve(self) -> None:
        """Answer what is asked until the connection is lost."""
        while not self._session.lost():
            if self._later and self._later[0][0] <= self._loop.time():
                self._round.appendleft(self._later.pop(0)[1])
            if self._round:
                if not await self._send(self._round.popleft()):
                    return
            elif self._outbox:
                for _ in range(2):
                    # A lone one waits: who was woken by it, or with it, comes in a tick or two.
                    if len(self._outbox) == 1:
                        await asyncio.sleep(0)
                waiting, self._outbox = self._outbox, deque()
                alive = [each for each in waiting if not self._is_over(each)]
                self._round.extend(gather(alive, self.ordered))
            else:
                await self._until_asked()

    async def _until_asked(self) -> None:
        """Or until it is time for what was put off."""
        wait = self._later[0][0] - self._loop.time() if self._later else None
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._wake.wait()

    def _is_over(self, operation: Operation) -> bool:
        if operation.future.done():
            self._forget(operation)
            return True
        return False

    async def _send(self, batch: Batch) -> bool:
        """One call and its answers; False if the connection is of no use any more."""
        if not batch.prune():
            return True
        operations = list(dict.fromkeys(batch.operations()))
        for operation in operations:
            operation.sent = True
        call = batch.call(self._held)
        try:
            rows = await self._session.ask(Call(call.name, *self._head(), *call.args))
        except faults.DRIVER as error:
            return await self._failed(batch, operations, error)
        self._failures = 0
        self._round.extendleft(reversed(batch.answered(rows, self._news)))
        self._settle(operations)
        return True

    def _settle(self, operations: list[Operation]) -> None:
        for operation in operations:
            if operation.future.done():
                self._forget(operation)

    async def _failed(
        self, batch: Batch, operations: list[Operation], error: BaseException
    ) -> bool:
        """Ask again, ask one by one, or tell them; False if the connection is of no use."""
        ended = faults.ends_connection(error)
        why = faults.passing(error) or faults.unsent(error)
        parts = batch.parts()
        if ended and why is not None:
            self._again([batch], operations)
        elif ended:
            self._lost(parts, error)
        elif len(parts) > 1:  # only the guilty one pays
            self._again(parts, operations)
        elif why is not None:
            self._again([], operations)
            self._put_off(batch, operations)
        else:
            for operation in operations:
                operation.fail(faults.refusal(self._shown, error))
                self._forget(operation)
        if why is not None or ended:
            self._trouble = why or str(error)
        if ended:
            self._session.drop()
        return not ended

    def _lost(self, parts: list[Batch], error: BaseException) -> None:
        """What may be asked twice is asked again; what became of the rest is unknown."""
        text = f"{self._shown} was lost ({error}); the outcome is unknown"
        for part in parts:
            if part.repeatable:
                self._again([part], list(part.operations()))
            else:
                for operation in part.operations():
                    self._fail(operation, text)

    def _put_off(self, batch: Batch, operations: list[Operation]) -> None:
        """What somebody's transaction holds up holds up nobody behind it: it is asked again when
        as much time has passed as since it was first asked, and of many one each second."""
        now = self._loop.time()
        waited = now - min(operation.since for operation in operations)
        pause = min(max(waited, PAUSE), 1.0) * (1 + len(self._later)) * random.uniform(0.5, 1.0)
        insort(self._later, (now + pause, batch), key=itemgetter(0))

    def _again(self, batches: list[Batch], operations: list[Operation]) -> None:
        """Nothing was done: these are first in line."""
        for operation in operations:
            operation.sent = operation.begun
        self._round.extendleft(reversed(batches))


def _note_failure(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.warning("what was given back will come again when its lease ends: %s", error)
