"""What this process asks, in one order: what waits leaves as one group, and its answers come back.

A group is under way until the server has stored it and the log has shown what it came to; only
then the next one leaves. On a new connection it is sent again, under its number, so that it takes
effect once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from ...errors import StoreError, UsageError
from ...lifecycle import GIVE_BACK
from ...overdue import Watch
from ...store import Batch, Turn, Verdict
from . import steps
from .calls import Call, Flight
from .replica import Step
from .rounds import noted
from .session import Session
from .steps import Op, Put
from .stream import RefusedError

GROUP, GROUP_BYTES = 512, 4 * 2**20
FEW = 16
"""So few calls wait a tick or two for others: a message of their own costs more."""
CLOSING_SECONDS = 2.0


class Lane:
    """shown: the place, for errors. patience: seconds a call waits before it fails. clock: instead
    of the server's, for tests. untold: called with who died in a call that nobody waits for."""

    def __init__(
        self,
        shown: str,
        patience: float,
        clock: Callable[[], float] | None,
        untold: Callable[[tuple[str, ...]], None],
    ) -> None:
        self.writer = secrets.token_hex(8)
        self._untold = untold
        self._shown = shown
        self._patience = patience
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._number = 0
        self._waiting: deque[Call] = deque()
        self._flight: Flight | None = None
        self._lost: Flight | None = None
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._session: Session | None = None
        self._trouble: Exception | None = None
        self._broken: Exception | None = None
        self._watch = Watch(self._loop, self._give_up)

    # -- the connection ------------------------------------------------------------------

    async def up(self, session: Session) -> None:
        """There is a connection, and the log has been read: what is not in it is sent again."""
        self._session = session
        self._wake.set()
        flight = self._flight
        if flight is None:
            return
        if session.replica.last_of(self.writer) < flight.number:
            flight.step = None  # what was seen of it is no more, if the log was set back
            await self._fly(flight)
        elif flight.step is not None:
            flight.unstored.clear()
            self._land(flight)
        else:  # it went into an image that this process goes on from
            self._clear(flight)
            for call in flight.calls:
                call.fail(StoreError(f"{self._shown}: the answer is lost; the outcome is unknown"))

    def down(self, trouble: Exception | None) -> None:
        """There is none; what is asked waits."""
        self._session = None
        self._trouble = trouble or self._trouble

    def fail(self, error: Exception) -> None:
        """There will be none any more."""
        self._broken = error
        for call in self._all():
            call.fail(StoreError(str(error)))
        self._waiting.clear()
        self._flight = None
        self._idle.set()

    async def close(self) -> None:
        """Let what is on its way arrive, but not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                while self.busy:
                    self._idle.clear()
                    await self._idle.wait()
        self._watch.cancel()
        self.fail(StoreError(f"{self._shown}: closed; the outcome is unknown"))

    # -- asking --------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether something was asked that has not been answered."""
        return self._flight is not None or bool(self._waiting)

    async def do(self, *ops: Op) -> list[Any]:
        """The answers to operations, once they are in the log; of none, once all that was asked
        before was answered, and given back. Cancelled, what was not sent is withdrawn, and a claim
        that was is given back before anything that is asked later."""
        call = self._submit(*ops)
        try:
            return await call.future
        except asyncio.CancelledError:
            if call in self._waiting:
                self._waiting.remove(call)
                self._wake.set()
            elif not call.future.cancelled() and call.future.exception() is None:
                self.undo(call.future.result())
            raise

    def check(self) -> None:
        """UsageError in a process that was forked from the one whose connection this is."""
        if os.getpid() != self._pid:
            raise UsageError(f"{self._shown} was opened before a fork; connect again")

    def _submit(self, *ops: Op) -> Call:
        self.check()
        if self._broken is not None:
            raise StoreError(str(self._broken))
        call = Call(ops, self._loop.create_future(), self._loop.time())
        self._waiting.append(call)
        self._wake.set()
        self._watch.until(call.since + self._patience)
        return call

    def undo(self, answers: list[Any]) -> None:
        """Give back what a claim took for nobody, before anything that is asked later."""
        for answer in answers:
            if isinstance(answer, Batch | Verdict) and answer.died:
                self._untold(answer.died)
        batches = [answer for answer in answers if isinstance(answer, Batch)]
        back = [
            Put(Turn(token=leased.token, outcome=GIVE_BACK))
            for batch in batches
            for leased in batch.leased
        ]
        if back and self._broken is None:
            self._submit(*back).future.add_done_callback(noted)
            self._waiting.rotate(1)

    # -- sending -------------------------------------------------------------------------

    async def drive(self) -> None:
        """Send group after group, for ever."""
        while True:
            await self._wake.wait()
            for _ in range(2):
                # Few wait: who was woken by them, or with them, comes in a tick or two.
                if 0 < len(self._waiting) <= FEW:
                    await asyncio.sleep(0)
            self._wake.clear()
            while self._flight is None and self._waiting and not self._waiting[0].ops:
                self._waiting.popleft().land([])
            if self._flight is None and self._waiting and self._session is not None:
                self._flight = self._take_off(self._session.max_payload)
                if self._flight is not None:
                    await self._fly(self._flight)
            if not self.busy:
                self._idle.set()

    def _take_off(self, most: int) -> Flight | None:
        calls: list[Call] = []
        size = 0
        while self._waiting and len(calls) < GROUP and size < GROUP_BYTES:
            call = self._waiting.popleft()
            calls.append(call)
            size += call.size()
        self._number += 1
        now = None if self._clock is None else self._clock()
        try:
            ops = _packed(calls)
        except (ValueError, TypeError, OverflowError):
            calls = [call for call in calls if self._can_be_written(call)]
            if not calls:
                self._wake.set()
                return None
            ops = _packed(calls)
        return Flight(self._number, calls, steps.parts(self.writer, self._number, now, ops, most))

    def _can_be_written(self, call: Call) -> bool:
        try:
            _packed([call])
        except (ValueError, TypeError, OverflowError) as error:
            call.fail(StoreError(f"{self._shown}: {error!r}; nothing was stored"))
            return False
        return True

    async def _fly(self, flight: Flight) -> None:
        flight.sent += 1
        for index, message in enumerate(flight.messages):
            session = self._session
            if session is not None:
                await session.send(f"{flight.number}-{index}", message)

    # -- landing -------------------------------------------------------------------------

    def ops(self, writer: str, number: int) -> tuple[Op, ...]:
        """The operations of a group, if it is this process's, and under way."""
        flight = self._flying(writer, number)
        return () if flight is None else flight.ops

    def stepped(self, step: Step) -> None:
        """A group took effect, perhaps one of this process."""
        flight = self._flying(step.writer, step.number)
        if flight is not None:
            flight.step = step
            self._land(flight)

    def stored(self, name: str, error: RefusedError | None) -> None:
        """The server answered for a part of a group; with a refusal there is nothing of it, unless
        it was sent before."""
        number, _, index = name.partition("-")
        flight = self._flying(self.writer, int(number))
        if flight is None:
            return
        if error is None:
            flight.unstored.discard(int(index))
            self._land(flight)
            return
        self._clear(flight)
        if flight.sent > 1:
            self._lost = flight
        outcome = "nothing was stored" if flight.sent == 1 else "the outcome is unknown"
        for call in flight.calls:
            call.fail(StoreError(f"{self._shown}: {error}; {outcome}"))

    def _flying(self, writer: str, number: int) -> Flight | None:
        if writer != self.writer:
            return None
        found = [each for each in (self._flight, self._lost) if each and each.number == number]
        return found[0] if found else None

    def _land(self, flight: Flight) -> None:
        """It is stored, and the log has shown what it came to. What is seen while the log is read
        after a loss is stored, though the server's answer was lost."""
        if flight.step is None or (flight.unstored and self._session is not None):
            return
        self._clear(flight)
        answers = iter(flight.step.answers)
        for call in flight.calls:
            own = list(islice(answers, len(call.ops)))
            if call.future.done():
                self.undo(own)
            else:
                call.land(own)

    def _clear(self, flight: Flight) -> None:
        if self._lost is flight:
            self._lost = None
        if self._flight is flight:
            self._flight = None
            self._wake.set()

    # -- patience ------------------------------------------------------------------------

    def _all(self) -> list[Call]:
        return [*(self._flight.calls if self._flight is not None else ()), *self._waiting]

    def _give_up(self) -> None:
        """Fail what has waited too long: unstored if it was not sent, else outcome unknown."""
        while self._waiting and self._is_late(self._waiting[0]):
            self._waiting.popleft().fail(StoreError(self.silence("nothing was stored")))
        flight = self._flight
        if flight is not None:
            for call in flight.calls:
                if self._is_late(call):
                    call.fail(StoreError(self.silence("the outcome is unknown")))
            if all(self._is_late(call) for call in flight.calls):
                self._clear(flight)
                # Should it be seen yet, its claims are undone; not once a later one is seen.
                self._lost = flight
        self._wake.set()
        left = [call.since for call in self._all() if not self._is_late(call)]
        if left:
            self._watch.until(min(left) + self._patience)

    def _is_late(self, call: Call) -> bool:
        return self._watch.overdue(call.since + self._patience)

    def silence(self, outcome: str, trouble: Exception | None = None) -> str:
        """What to say of a server that has not answered."""
        trouble = trouble or self._trouble
        reason = f" ({trouble})" if trouble is not None else ""
        return f"{self._shown} did not answer within {self._patience} s{reason}; {outcome}"


def _packed(calls: list[Call]) -> bytes:
    return steps.packed(tuple([op for call in calls for op in call.ops]))
