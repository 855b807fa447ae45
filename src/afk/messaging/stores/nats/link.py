"""The way to the log, in one order: what waits leaves as one group, and its answers are read back.

A group is under way until the server has stored it and the log has shown what it came to; only
then the next one leaves. On a new connection a group that was not seen yet is sent again, under
its number, so that it takes effect once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from ...errors import ConfigurationError, MessagingError, StoreError, UsageError
from ...lifecycle import Again, RetryPolicy
from ...log import log
from ...store import Batch, Turn
from . import steps
from .place import Place, UnreachableError
from .replica import Replica, Step
from .session import Session
from .steps import Op, Put
from .stream import Info, Names, RefusedError

GROUP, GROUP_BYTES = 512, 4 * 2**20
BACKOFF = RetryPolicy(base=0.05, cap=1.0)
CLOSING_SECONDS = 2.0


class Call:
    """Operations, and who waits for their answers."""

    __slots__ = ("future", "ops", "since")

    def __init__(
        self, ops: tuple[Op, ...], future: asyncio.Future[list[Any]], since: float
    ) -> None:
        self.ops = ops
        self.future = future
        self.since = since

    def land(self, answers: list[Any]) -> None:
        """Pass the answers on; an error among them is raised."""
        error = next((each for each in answers if isinstance(each, BaseException)), None)
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(answers)

    def fail(self, error: MessagingError) -> None:
        """There will be no answer."""
        if not self.future.done():
            self.future.set_exception(error)


class Flight:
    """A group under way. unstored: the parts the server has not answered for."""

    def __init__(self, number: int, calls: list[Call], messages: list[bytes]) -> None:
        self.number = number
        self.calls = calls
        self.ops = tuple([op for call in calls for op in call.ops])
        self.messages = messages
        self.unstored = set(range(len(messages)))
        self.step: Step | None = None


class Link:
    """patience: seconds a call waits before it fails. clock: instead of the server's, for tests.
    stepped: called when a group of anyone took effect; renewed: when there is a new connection,
    and whether the state had to be read anew."""

    def __init__(
        self,
        place: Place,
        names: Names,
        patience: float,
        replicas: int | None,
        clock: Callable[[], float] | None,
        stepped: Callable[[Step], None],
        renewed: Callable[[Info, bool], None],
    ) -> None:
        self.writer = secrets.token_hex(8)
        self._place = place
        self._names = names
        self._patience = patience
        self._copies = replicas
        self._clock = clock
        self._news = stepped
        self._renewed = renewed
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._number = 0
        self._waiting: deque[Call] = deque()
        self._flight: Flight | None = None
        self._lost: dict[int, Flight] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._session: Session | None = None
        self._up = asyncio.Event()
        self._over = asyncio.Event()
        self._trouble: Exception | None = None
        self._broken: ConfigurationError | None = None
        self._created = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._watch: asyncio.TimerHandle | None = None
        self._round = asyncio.Lock()
        self._next_round: asyncio.Task[float] | None = None
        self._ahead = 0.0
        self._closed = False
        self.replica = Replica()

    # -- life ----------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect and read the log; StoreError or ConfigurationError if that cannot be."""
        end = self._loop.time() + self._patience
        while True:
            try:
                await self._connect()
                break
            except UnreachableError:
                raise  # nobody is there, or a password is wrong: that is said at once
            except StoreError as error:
                if self._loop.time() >= end:
                    raise StoreError(f"{error}; nothing was stored") from error
                await asyncio.sleep(BACKOFF.delay(1, 0.5))
        self._tasks = [self._loop.create_task(work()) for work in (self._stay, self._drive)]

    async def close(self) -> None:
        """Let what is on its way arrive, then let go of the connection."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                while self._flight is not None or self._waiting:
                    self._idle.clear()
                    await self._idle.wait()
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._watch is not None:
            self._watch.cancel()
        if self._session is not None:
            await self._session.close()
        failure = StoreError(f"{self._place.shown}: closed; the outcome is unknown")
        for call in [*self._waiting, *(self._flight.calls if self._flight else ())]:
            call.fail(failure)

    async def _connect(self) -> None:
        self._over.clear()
        session = Session(
            self._place,
            self._names,
            own=self._own_ops,
            stepped=self._stepped,
            stored=self._stored,
            ended=self._ended,
        )
        known = self.replica if self._created else None
        await session.open(known, self._created, self._copies)
        self.replica, self._created = session.replica, session.info.created
        self._session, self._trouble = session, None
        self._renewed(session.info, session.replica is not known)
        self._up.set()
        self._wake.set()

    async def _stay(self) -> None:
        """Have a connection: whenever one is over, make another."""
        failures = 0
        while True:
            await self._over.wait()
            if self._session is not None:
                await self._session.close()
                self._session = None
            try:
                await self._connect()
                failures = 0
                if self._flight is not None:
                    await self._fly(self._flight)
            except ConfigurationError as error:
                self._give_up_for_good(error)
                return
            except Exception as error:  # noqa: BLE001 - it must be tried again, whatever it was
                log.debug("%s: no connection: %s", self._place.shown, error)
                self._trouble = error
                self._over.set()
                failures += 1
                await asyncio.sleep(BACKOFF.delay(failures, random.random()))

    def _ended(self, error: Exception | None) -> None:
        self._up.clear()
        self._trouble = error or self._trouble
        self._over.set()
        if not self._closed:
            log.debug("%s: %s", self._place.shown, error)

    def _give_up_for_good(self, error: ConfigurationError) -> None:
        """What is there is not what was there: no call is answered any more."""
        log.error("%s", error)
        self._broken = error
        calls = [*self._waiting, *(self._flight.calls if self._flight else ())]
        self._waiting.clear()
        self._flight = None
        for call in calls:
            call.fail(StoreError(str(error)))
        self._up.set()

    # -- asking --------------------------------------------------------------------------

    async def do(self, *ops: Op) -> list[Any]:
        """The answers to operations, once they are in the log. Cancelled, what was not sent is
        withdrawn, and a claim that was is given back before anything that is asked later."""
        call = self._submit(*ops)
        try:
            return await call.future
        except asyncio.CancelledError:
            if call in self._waiting:
                self._waiting.remove(call)
            elif not call.future.cancelled() and call.future.exception() is None:
                self._undo(call.future.result())
            raise

    def _submit(self, *ops: Op) -> Call:
        if os.getpid() != self._pid:
            raise UsageError(f"{self._place.shown} was opened before a fork; connect again")
        if self._broken is not None:
            raise StoreError(str(self._broken))
        call = Call(ops, self._loop.create_future(), self._loop.time())
        self._waiting.append(call)
        self._wake.set()
        if self._watch is None:
            self._watch = self._loop.call_later(self._patience, self._give_up)
        return call

    async def fresh(self) -> float:
        """Know all that was in the log when this was asked; the time then."""
        if self._next_round is None:
            self._next_round = self._loop.create_task(self._ask_around())
            self._next_round.add_done_callback(_noted)
        return await asyncio.shield(self._next_round)

    async def _ask_around(self) -> float:
        """One question for all who ask while the one before is under way."""
        async with self._round:
            self._next_round = None
            end = self._loop.time() + self._patience
            while True:
                session = await self._connected(end)
                try:
                    at = (await session.fresh()).timestamp()
                except StoreError as error:
                    if self._loop.time() >= end:
                        raise StoreError(f"{self._place.shown}: {error}") from error
                    await asyncio.sleep(BACKOFF.base)
                else:
                    self._ahead = at - self._loop.time()
                    return self.now()

    async def _connected(self, end: float) -> Session:
        try:
            async with asyncio.timeout_at(end):
                await self._up.wait()
        except TimeoutError:
            raise StoreError(self._silence("nothing was stored")) from None
        if self._broken is not None or self._session is None:
            raise StoreError(str(self._broken))
        return self._session

    def now(self) -> float:
        """The server's time, as far as it is known without asking."""
        if self._clock is not None:
            return self._clock()
        return max(self.replica.now, self._loop.time() + self._ahead)

    # -- sending, and landing ------------------------------------------------------------

    async def _drive(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._flight is None and self._waiting and self._up.is_set():
                self._flight = self._take_off()
                await self._fly(self._flight)

    def _take_off(self) -> Flight:
        calls: list[Call] = []
        size = 0
        while self._waiting and len(calls) < GROUP and size < GROUP_BYTES:
            call = self._waiting.popleft()
            calls.append(call)
            size += sum(map(_size, call.ops))
        self._number += 1
        now = None if self._clock is None else self._clock()
        assert self._session is not None
        messages = steps.parts(
            self.writer,
            self._number,
            now,
            steps.packed(tuple([op for call in calls for op in call.ops])),
            self._session.max_payload,
        )
        return Flight(self._number, calls, messages)

    async def _fly(self, flight: Flight) -> None:
        for index, message in enumerate(flight.messages):
            session = self._session
            if session is not None:
                await session.send(f"{flight.number}-{index}", message)

    def _own_ops(self, writer: str, number: int) -> tuple[Op, ...]:
        flight = self._flying(writer, number)
        return () if flight is None else flight.ops

    def _flying(self, writer: str, number: int) -> Flight | None:
        if writer != self.writer:
            return None
        if self._flight is not None and self._flight.number == number:
            return self._flight
        return self._lost.get(number)

    def _stepped(self, step: Step) -> None:
        flight = self._flying(step.writer, step.number)
        if flight is not None:
            flight.step = step
            self._land(flight)
        self._news(step)

    def _stored(self, name: str, error: RefusedError | None) -> None:
        number, _, index = name.partition("-")
        flight = self._flying(self.writer, int(number))
        if flight is None:
            return
        if error is not None:
            self._refused(flight, error)
        else:
            flight.unstored.discard(int(index))
            self._land(flight)

    def _refused(self, flight: Flight, error: RefusedError) -> None:
        if error.error.code == 503 and self._session is not None:
            self._ended(error)  # it passes: it is sent again
            return
        self._clear(flight)
        for call in flight.calls:
            call.fail(StoreError(f"{self._place.shown}: {error}; nothing was stored"))

    def _land(self, flight: Flight) -> None:
        """It is stored, and the log has shown what it came to. What is seen on a connection made
        since it left is stored, though the server's answer was lost."""
        if flight.step is None or (flight.unstored and self._up.is_set()):
            return
        self._clear(flight)
        answers = iter(flight.step.answers)
        for call in flight.calls:
            own = list(islice(answers, len(call.ops)))
            if call.future.done():
                self._undo(own)
            else:
                call.land(own)

    def _clear(self, flight: Flight) -> None:
        self._lost.pop(flight.number, None)
        if self._flight is flight:
            self._flight = None
            self._wake.set()
            if not self._waiting:
                self._idle.set()

    def _undo(self, answers: list[Any]) -> None:
        """Give back what a claim took for nobody, before anything that is asked later."""
        batches = [answer for answer in answers if isinstance(answer, Batch)]
        back = [
            Put(Turn(token=leased.token, outcome=Again(0.0, counts=False)))
            for batch in batches
            for leased in batch.leased
        ]
        if back and self._broken is None:
            self._submit(*back).future.add_done_callback(_noted)
            self._waiting.rotate(1)

    # -- patience ------------------------------------------------------------------------

    def _give_up(self) -> None:
        """Fail what has waited too long: unstored if it was not sent, else outcome unknown."""
        self._watch = None
        late = self._loop.time() - self._patience
        while self._waiting and self._waiting[0].since <= late:
            self._waiting.popleft().fail(StoreError(self._silence("nothing was stored")))
        flight = self._flight
        if flight is not None:
            for call in flight.calls:
                if call.since <= late:
                    call.fail(StoreError(self._silence("the outcome is unknown")))
            if all(call.future.done() for call in flight.calls):
                self._clear(flight)
                self._lost = {flight.number: flight}  # should it be seen yet, claims are undone
        left = [call.since for call in self._waiting]
        left += [call.since for call in self._flight.calls] if self._flight is not None else []
        if left:
            self._watch = self._loop.call_at(
                max(min(left), late + 0.05) + self._patience, self._give_up
            )

    def _silence(self, outcome: str) -> str:
        reason = f" ({self._trouble})" if self._trouble is not None else ""
        return f"{self._place.shown} did not answer within {self._patience} s{reason}; {outcome}"


def _size(op: Op) -> int:
    if not isinstance(op, Put):
        return 0
    return sum([len(send.body) for send in op.turn.sends if isinstance(send.body, bytes)])


def _noted(future: asyncio.Future[Any]) -> None:
    """Whoever asked may be gone: its failure is no secret then."""
    if not future.cancelled() and (error := future.exception()) is not None:
        log.debug("%s", error)
