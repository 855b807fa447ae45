"""One writer thread per store: what waits when it gets the lock commits together.

Operations are functions of a `Step`. The thread takes all that wait, the lock, runs them in
one transaction, and answers after its one fsync. If one fails, all are undone and run again
one by one, so that only the guilty one pays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import ConfigurationError, MessagingError, StoreError, UsageError
from . import file
from .holding import Holdings
from .lock import LockFile
from .session import Session
from .step import Step

log = logging.getLogger("afk.messaging")

GROUP = 512
_WAITING, _RUNNING, _OVER = range(3)
_REOPEN = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN}


class _Operation:
    """A function waiting for its turn, and who waits for its answer."""

    __slots__ = ("answer", "future", "opens", "run", "since", "state", "writes")

    def __init__(
        self,
        run: Callable[[Step], Any],
        writes: bool,
        opens: bool,
        future: asyncio.Future[Any],
    ) -> None:
        self.run = run
        self.writes = writes
        self.answer: Any = None
        self.opens = opens
        self.future = future
        self.since = time.monotonic()
        self.state = _WAITING


class Engine:
    """The thread, its connection, its lock. All public methods are for the event loop.

    told: called in the loop after each commit with (topics to ring, when something is next due).
    patience: seconds an operation waits for other processes before it fails, unstored.
    """

    def __init__(
        self,
        path: Path,
        synchronous: str,
        namespace: str,
        clock: Callable[[], float],
        told: Callable[[list[str], float], None],
        patience: float,
    ) -> None:
        self.path = path
        self.lock: LockFile
        self._synchronous = synchronous
        self._namespace = namespace
        self._clock = clock
        self._told = told
        self._patience = patience
        self._queue: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._mutex = threading.Lock()
        self._pending: dict[_Operation, None] = {}
        self._watch: asyncio.TimerHandle | None = None
        self._db: sqlite3.Connection | None = None
        self._space = 0
        self._pid = os.getpid()
        self._stopped = False
        self.seen_writes = 0
        self.holdings = Holdings()

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
        await opened

    async def stop(self) -> None:
        """Finish what waits, close the file, end the thread."""
        self._stopped = True
        self._queue.put(None)
        try:
            async with asyncio.timeout(self._patience):
                await self._ended
        except TimeoutError:
            log.warning("%s: closed without waiting longer for process %s", self.path, self._owner)
        else:
            self._thread.join()
            self.lock.close()
        if self._watch is not None:
            self._watch.cancel()

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
        except asyncio.CancelledError:
            if not self._withdrawn(operation) and undo is not None:
                self._submit(lambda step: _undo(operation, undo, step)).future.add_done_callback(
                    _note_failure
                )
            raise

    def _withdrawn(self, operation: _Operation) -> bool:
        with self._mutex:
            waiting = operation.state == _WAITING
            if waiting:
                operation.state = _OVER
        if waiting:
            del self._pending[operation]
        return waiting

    def _submit(
        self, run: Callable[[Step], Any], writes: bool = True, opens: bool = False
    ) -> _Operation:
        if os.getpid() != self._pid:
            raise UsageError(f"{self.path} was opened before a fork; connect again in the child")
        if self._stopped:
            raise UsageError(f"{self.path} is closed")
        operation = _Operation(run, writes, opens, self._loop.create_future())
        self._pending[operation] = None
        self._queue.put(operation)
        if self._watch is None:
            self._watch = self._loop.call_later(self._patience, self._give_up)
        return operation

    @property
    def _owner(self) -> object:
        return self.lock.holder or "(unknown)"

    def _give_up(self) -> None:
        """Fail what has waited too long: unstored if it had not begun, else outcome unknown."""
        self._watch = None
        now = time.monotonic()
        for operation in list(self._pending):
            waited = now - operation.since
            if waited < self._patience:
                self._watch = self._loop.call_later(self._patience - waited, self._give_up)
                break
            with self._mutex:
                begun = operation.state == _RUNNING
                operation.state = _OVER
            del self._pending[operation]
            what = (
                "did not answer; the outcome is unknown"
                if begun
                else f"is locked by process {self._owner}; nothing was stored"
            )
            if not operation.future.done():
                operation.future.set_exception(
                    StoreError(f"{self.path} {what} (waited {waited:.0f} s)")
                )

    def _deliver(
        self, answers: list[tuple[_Operation, Any]], topics: list[str], due: float
    ) -> None:
        for operation, answer in answers:
            self._pending.pop(operation, None)
            future = operation.future
            if future.done():  # cancelled, or given up
                if isinstance(answer, Session):
                    answer.abandon()
            elif isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        self._told(topics, due)

    # -- in the thread -------------------------------------------------------------------

    def _main(self, opened: asyncio.Future[None]) -> None:
        try:
            file.check_place(self.path)
            file.create(self.path)
            self.lock = LockFile(self.path.with_name(self.path.name + ".lock"))
            with self.lock.held():
                self._connect()
        except (MessagingError, OSError, sqlite3.Error) as error:
            self._post(_fail, opened, self._unopened(error))
            return
        self._post(_succeed, opened)
        try:
            while (group := self._collect()) is not None:
                plain = [operation for operation in group if not operation.opens]
                if plain or not group:
                    self._serve(plain)
                for operation in group:
                    if operation.opens:
                        self._hold(operation)
        finally:
            self._disconnect()
            self._post(_succeed, self._ended)

    def _unopened(self, error: Exception) -> MessagingError:
        if isinstance(error, MessagingError):
            return error
        if isinstance(error, PermissionError):
            return ConfigurationError(f"{error}; check the permissions of its folder")
        return self._failure(error)

    def _connect(self) -> None:
        self._db = file.connect(self.path, self._synchronous)
        self._db.execute(
            "INSERT OR IGNORE INTO afk_space (name, roster) VALUES (?, 0)", (self._namespace,)
        )
        (self._space,) = self._db.execute(
            "SELECT space FROM afk_space WHERE name = ?", (self._namespace,)
        ).fetchone()

    def _disconnect(self) -> None:
        if self._db is not None:
            # The last one to close checkpoints, so no other process may be writing.
            with self.lock.held(), contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _collect(self) -> list[_Operation] | None:
        """All that wait, at most GROUP; an empty list when leases are to be renewed; None: stop."""
        group: list[_Operation] = []
        try:
            operation = self._queue.get(timeout=self.holdings.wait())
            while operation is not None:
                group.append(operation)
                if len(group) == GROUP:
                    return group
                operation = self._queue.get_nowait()
        except queue.Empty:
            return group
        if group:
            self._queue.put(None)  # stop after these
            return group
        return None

    def _serve(self, group: list[_Operation]) -> None:
        writes = not group or any(operation.writes for operation in group)
        with self.lock.held() if writes else contextlib.nullcontext():
            with self._mutex:
                group = [operation for operation in group if operation.state == _WAITING]
                for operation in group:
                    operation.state = _RUNNING
            try:
                if self._db is None:
                    self._connect()
                answers, step = self._together(group, writes)
            except _CommitError as error:
                answers, step = [(o, error.failure()) for o in group], None
            except Exception as error:  # noqa: BLE001 - the thread must live on
                self._recover(error)
                answers, step = self._one_by_one(group, writes), None
        topics = [] if step is None else step.topics
        self._post(self._deliver, answers, topics, float("inf") if step is None else step.next_due)

    def _together(
        self, group: list[_Operation], writes: bool
    ) -> tuple[list[tuple[_Operation, Any]], Step]:
        """One transaction for all of them."""
        db = self._db
        assert db is not None
        db.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        before = db.total_changes
        try:
            step = Step(db, self._clock(), self._space)
            answers = [(operation, _answer(operation, step)) for operation in group]
            if writes:
                for token, seconds in self.holdings.due():
                    step.renew(token, seconds)
                step.close()
        except BaseException:
            db.execute("ROLLBACK") if db.in_transaction else None
            raise
        try:
            db.execute("COMMIT")
        except sqlite3.Error as error:
            self._recover(error)
            raise _CommitError(self.path, error) from error
        for operation, answer in answers:
            operation.answer = answer
        self.holdings.apply(step.held, step.released)
        if db.total_changes != before:
            self._count()
        return answers, step

    def _count(self) -> None:
        """Note the write for other processes; our own we have seen, if we had seen all before."""
        seen = self.lock.writes == self.seen_writes
        self.lock.count()
        if seen:
            self.seen_writes = self.lock.writes

    def _one_by_one(self, group: list[_Operation], writes: bool) -> list[tuple[_Operation, Any]]:
        answers: list[tuple[_Operation, Any]] = []
        for operation in group:
            try:
                if self._db is None:
                    self._connect()
                answers += self._together([operation], writes)[0]
            except _CommitError as error:
                answers.append((operation, error.failure()))
            except Exception as error:  # noqa: BLE001 - the thread must live on
                self._recover(error)
                known = isinstance(error, MessagingError)
                answers.append((operation, error if known else self._failure(error)))
        return answers

    def _recover(self, error: Exception) -> None:
        """After an I/O error nothing that this connection believes is certain: open anew."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        log.warning("%s: %s", self.path, error)
        if code in _REOPEN and self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _failure(self, error: Exception) -> StoreError:
        failure = StoreError(f"{self.path}: {error}")
        failure.__cause__ = error
        return failure

    def _post(self, call: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it who waited
            self._loop.call_soon_threadsafe(call, *arguments)

    # -- a transaction for the caller ------------------------------------------------------

    async def session(self) -> Session:
        """A transaction opened in its turn; the thread, and every writer, waits until it ends."""
        operation = self._submit(_no_step, opens=True)
        try:
            session: Session = await operation.future
        except asyncio.CancelledError:
            future = operation.future
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().abandon()
            raise
        return session

    def _hold(self, operation: _Operation) -> None:
        """Open a transaction, hand it over, and end it as its owner says."""
        with self.lock.held():
            with self._mutex:
                if operation.state != _WAITING:
                    return
                operation.state = _RUNNING
            try:
                if self._db is None:
                    self._connect()
                assert self._db is not None
                self._db.execute("BEGIN IMMEDIATE")
            except (sqlite3.Error, MessagingError) as error:
                self._recover(error)
                self._post(self._deliver, [(operation, self._failure(error))], [], float("inf"))
                return
            session = Session(self._db, self._loop)
            self._post(self._deliver, [(operation, session)], [], float("inf"))
            run, answer = session.ended()
            try:
                step = Step(self._db, self._clock(), self._space)
                verdict = session.finish(run, step)
                if step.written:
                    self.holdings.apply(step.held, step.released)
                    self._count()
                self._post(self._told, step.topics, step.next_due)
                self._post(_succeed, answer, verdict)
            except (sqlite3.Error, MessagingError) as error:
                self._recover(error)
                self._post(_fail, answer, self._failure(error))


class _CommitError(Exception):
    """The commit failed: whether it took effect is not known."""

    def __init__(self, path: Path, error: sqlite3.Error) -> None:
        super().__init__(f"{path}: {error}; the outcome is unknown")

    def failure(self) -> StoreError:
        return StoreError(str(self))


def _answer(operation: _Operation, step: Step) -> Any:
    """What an operation says; a refusal in the library's own words is an answer too."""
    try:
        return operation.run(step)
    except MessagingError as error:
        return error


def _no_step(step: Step) -> None:
    """An operation that only opens a session has no step of its own."""


def _undo(operation: _Operation, undo: Callable[[Step, Any], None], step: Step) -> None:
    if operation.answer is not None and not isinstance(operation.answer, BaseException):
        undo(step, operation.answer)


def _note_failure(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and future.exception() is not None:
        log.warning(
            "what was given back will come again when its lease ends: %s", future.exception()
        )


def _succeed(future: asyncio.Future[Any], result: Any = None) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
