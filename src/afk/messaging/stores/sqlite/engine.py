"""One writer thread per store: what waits when it gets the lock commits together.

Operations are functions of a `Step`. The thread takes all that wait, the lock, runs them in
one transaction, and answers after its one fsync. If one fails, all are undone and run again
one by one, so that only the guilty one pays.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import StoreError, UsageError
from ...hints import Bells
from ...log import log
from .claim import pass_time
from .look import heard
from .lookout import Lookout
from .session import Session
from .step import Step
from .writer import OVER, RUNNING, WAITING, Operation, Served, Writer, nothing

GROUP, HANDED = 512, 128
"""Operations of one transaction, and of those that are handed to the thread together, at most: it
lets go of so many old rows in one, and others wait for as long as that takes."""


class Engine:
    """The event loop's half: operations go in line here, and answers come back.

    bells: rung after each commit, and when the lookout has news of other processes or of time.
    patience: seconds an operation waits for other processes before it fails, unstored.
    """

    def __init__(
        self,
        path: Path,
        synchronous: str,
        namespace: str,
        clock: Callable[[], float],
        bells: Bells,
        patience: float,
    ) -> None:
        self.path = path
        self.writer = Writer(path, synchronous, namespace, clock)
        self._bells = bells
        self._clock = clock
        self._patience = patience
        self._queue: queue.SimpleQueue[list[Operation] | None] = queue.SimpleQueue()
        self._gathered: list[Operation] = []
        self._pending: dict[Operation, None] = {}
        self._watch: asyncio.TimerHandle | None = None
        self._pid = os.getpid()
        self._stopped = self._left = False
        self.untold: list[str] = []
        """Who died in a look: for the next call that can report it."""

    # -- in the event loop ---------------------------------------------------------------

    async def start(self) -> None:
        """Open the file and start the thread; ConfigurationError or StoreError if it cannot."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(
            target=self._main, args=(opened,), name=f"afk-sqlite {self.path.name}", daemon=True
        )
        self._thread.start()
        try:
            async with asyncio.timeout(self._patience):
                await opened
        except TimeoutError:
            self._leave()
            self._queue.put(None)
            raise StoreError(
                f"{self.path} is locked by process {self._owner}; it could not be opened"
                f" (waited {self._patience:g} s)"
            ) from None
        self.lookout = Lookout(self.writer.lock, self._bells, self._clock, self._look)

    async def stop(self) -> None:
        """Finish what waits, close the file, end the thread."""
        self._stopped = True
        self.lookout.close()
        self._hand_in()
        self._queue.put(None)
        try:
            async with asyncio.timeout(self._patience):
                await self._ended
        except TimeoutError:
            self._leave()
            log.warning("%s: closed without waiting longer for process %s", self.path, self._owner)
        else:
            self._thread.join()
            self.writer.lock.close()
        if self._watch is not None:
            self._watch.cancel()

    def _leave(self) -> None:
        """Nobody waits for the thread any more: it ends, and tidies up, once it gets the lock."""
        self._stopped = self._left = True

    async def do(
        self,
        run: Callable[[Step], Any],
        *,
        writes: bool = True,
        undo: Callable[[Step, Any], None] | None = None,
    ) -> Any:
        """Run an operation in its turn. Cancelled, it does not run if it had not begun; if it
        had, `undo` gets its answer, before anything that this process asks for later."""
        operation = self._submit(run, writes)
        try:
            return await operation.future
        except (asyncio.CancelledError, StoreError):
            # A given up operation may yet land, for nobody.
            if not self._withdrawn(operation) and undo is not None and not self._stopped:
                undoing = self._submit(lambda step: _undo(operation, undo, step))
                del self._pending[undoing]  # it must happen, however long it takes
                undoing.future.add_done_callback(_note_failure)
            raise

    async def session(self) -> Session:
        """A transaction opened in its turn; the thread, and every writer, waits until it ends."""
        operation = self._submit(nothing, opens=True)
        try:
            session: Session = await operation.future
        except asyncio.CancelledError:
            future = operation.future
            if self._withdrawn(operation):
                pass
            elif future.done() and not future.cancelled() and future.exception() is None:
                future.result().abandon()
            raise
        return session

    def _submit(
        self, run: Callable[[Step], Any], writes: bool = True, opens: bool = False
    ) -> Operation:
        if os.getpid() != self._pid:
            raise UsageError(f"{self.path} was opened before a fork; connect again in the child")
        if self._stopped:
            raise UsageError(f"{self.path} is closed")
        operation = Operation(run, writes, opens, self._loop.create_future())
        self._pending[operation] = None
        if not self._gathered:
            # Two ticks: who is woken now asks in the next one, and acks before that in one more.
            self._loop.call_soon(self._loop.call_soon, self._hand_in)
        self._gathered.append(operation)
        if self._watch is None:
            self._watch = self._loop.call_later(self._patience, self._give_up)
        return operation

    def _hand_in(self) -> None:
        """To the thread, what was asked for in these ticks; its patience begins."""
        gathered, self._gathered = self._gathered, []
        now = time.monotonic()
        for operation in gathered:
            operation.since = now
        for start in range(0, len(gathered), HANDED):
            self._queue.put(gathered[start : start + HANDED])

    def _withdrawn(self, operation: Operation) -> bool:
        with self.writer.mutex:
            waiting = operation.state == WAITING
            if waiting:
                operation.state = OVER
        if waiting:
            del self._pending[operation]
        return waiting

    @property
    def _owner(self) -> object:
        return self.writer.lock.holder or "(unknown)"

    def _give_up(self) -> None:
        """Fail what has waited too long: unstored if it had not begun, else outcome unknown."""
        self._watch = None
        self._hand_in()  # the loop was blocked since: the thread has not had its chance
        now = time.monotonic()
        for operation in list(self._pending):
            waited = now - operation.since
            if waited < self._patience:
                self._watch = self._loop.call_later(self._patience - waited, self._give_up)
                break
            with self.writer.mutex:
                begun = operation.state == RUNNING
                operation.state = OVER
            del self._pending[operation]
            what = (
                "did not answer; the outcome is unknown"
                if begun
                else f"is locked by process {self._owner}; nothing was stored"
            )
            _fail(operation.future, StoreError(f"{self.path} {what} (waited {waited:.1f} s)"))

    def _deliver(self, served: Served) -> None:
        for operation, answer in served.answers:
            self._pending.pop(operation, None)
            if isinstance(answer, Session) and operation.future.done():
                answer.abandon()  # cancelled, or given up
            elif isinstance(answer, BaseException):
                _fail(operation.future, answer)
            else:
                _succeed(operation.future, answer)
        self.lookout.own_write(*served.writes)
        self.lookout.told(served.topics, served.due)

    def _look(self, topics: list[str], due: bool) -> None:
        def look(step: Step) -> tuple[list[str], float, tuple[str, ...]]:
            if due:
                pass_time(step)
            return *heard(step, topics), step.obituaries()

        self._submit(look, writes=due).future.add_done_callback(self._looked)

    def _looked(self, looking: asyncio.Future[tuple[list[str], float, tuple[str, ...]]]) -> None:
        if looking.cancelled() or looking.exception() is not None:
            self.lookout.expect(self._clock() + 1.0)  # the store failed: try again
            return
        news, due, died = looking.result()
        self.untold += died
        self.lookout.told(news, due)

    # -- in the thread -------------------------------------------------------------------

    def _main(self, opened: asyncio.Future[None]) -> None:
        try:
            self.writer.open()
        except Exception as error:  # noqa: BLE001 - whatever it is, someone waits to hear of it
            self._post(_fail, opened, error)
            return
        self._post(_succeed, opened)
        try:
            while (group := self._collect()) is not None:
                try:
                    self._work(group)
                except Exception as error:  # noqa: BLE001 - the thread must live on
                    log.exception("%s: the writer failed", self.path)
                    failure = StoreError(f"{self.path}: {error}")
                    self._post_served(Served([(operation, failure) for operation in group]))
        finally:
            self.writer.close()
            if self._left:
                self.writer.lock.close()
            self._post(_succeed, self._ended)

    def _work(self, group: list[Operation]) -> None:
        plain = [operation for operation in group if not operation.opens]
        if plain or not group:
            self._post_served(self.writer.serve(plain))
        for operation in group:
            if operation.opens:
                lent = self.writer.lend(operation, self._loop, self._post_served)
                if lent is not None:
                    self._post_served(lent)

    def _collect(self) -> list[Operation] | None:
        """All that wait, at most GROUP; an empty list when leases are to be renewed; None: stop."""
        group: list[Operation] = []
        try:
            handed = self._queue.get(timeout=self.writer.holdings.wait())
            while handed is not None:
                group += handed
                if len(group) > GROUP - HANDED:
                    return group
                handed = self._queue.get_nowait()
        except queue.Empty:
            return group
        if group:
            self._queue.put(None)  # stop after these
            return group
        return None

    def _post_served(self, served: Served) -> bool:
        return self._post(self._deliver, served)

    def _post(self, call: Callable[..., None], *arguments: Any) -> bool:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop is gone, and with it who waited
            return False
        return True


def _undo(operation: Operation, undo: Callable[[Step, Any], None], step: Step) -> None:
    if operation.answer is not None and not isinstance(operation.answer, BaseException):
        undo(step, operation.answer)


def _note_failure(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.warning("what was given back will come again when its lease ends: %s", error)


def _succeed(future: asyncio.Future[Any], result: Any = None) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
