"""The writer thread's half of the engine: the connection, the lock, one transaction at a time."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from ...errors import ConfigurationError, MessagingError, StoreError
from ...log import log
from ..holding import Holdings
from . import file
from .lock import LockFile
from .session import Session
from .step import Held, Step

WAITING, RUNNING, OVER = range(3)
_STALE = 517
"""SQLITE_BUSY_SNAPSHOT: a cursor that a caller kept from a lent transaction pins an old state."""
_REOPEN = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN}


class Operation:
    """A function waiting for its turn, and who waits for its answer. Its state changes under
    the mutex of the writer: the event loop may withdraw it until it is running. since: when it was
    handed to the thread."""

    __slots__ = ("answer", "future", "opens", "run", "since", "state", "writes")

    def __init__(
        self, run: Callable[[Step], Any], writes: bool, opens: bool, future: asyncio.Future[Any]
    ) -> None:
        self.run = run
        self.writes = writes
        self.opens = opens
        self.future = future
        self.answer: Any = None
        self.since = 0.0
        self.state = WAITING


class Served(Struct):
    """What a group came to: answers (or errors), topics to ring, when something is next due, and
    the count of writes before and after."""

    answers: list[tuple[Operation, Any]]
    topics: list[str] = []
    due: float = float("inf")
    writes: tuple[int, int] = (0, 0)


class Writer:
    """Used by one thread, but for what `lock` says of itself and the mutex."""

    def __init__(
        self, path: Path, synchronous: str, namespace: str, clock: Callable[[], float]
    ) -> None:
        self.path = path
        self.lock: LockFile
        self.mutex = threading.Lock()
        self.holdings = Holdings()
        self.grants: dict[str, Held] = {}
        self._synchronous = synchronous
        self._namespace = namespace
        self._clock = clock
        self._db: sqlite3.Connection | None = None
        self._space = 0

    # -- the file ------------------------------------------------------------------------

    def open(self) -> None:
        """Open the file; ConfigurationError or StoreError if it cannot be."""
        try:
            file.check_place(self.path)
            file.create(self.path)
            self.lock = LockFile(self.path.with_name(self.path.name + ".lock"))
            try:
                with self.lock.held():
                    self._connection()
            except BaseException:
                self.close()
                self.lock.close()
                raise
        except PermissionError as error:
            raise ConfigurationError(f"{error}; check the permissions of its folder") from error
        except OSError as error:
            raise self._failure(error) from error
        except sqlite3.Error as error:
            raise file.explained(self.path, error) from error

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            # The last one to close checkpoints, so no other process may be writing.
            with self.lock.held(), contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = db = file.connect(self.path, self._synchronous)
            db.execute(
                "INSERT OR IGNORE INTO afk_space (name, roster, ended) VALUES (?, 0, 0)",
                (self._namespace,),
            )
            (self._space,) = db.execute(
                "SELECT space FROM afk_space WHERE name = ?", (self._namespace,)
            ).fetchone()
        return self._db

    def _recover(self, error: Exception) -> None:
        """After an I/O error nothing that this connection believes is certain: open anew."""
        code = getattr(error, "sqlite_errorcode", 0)
        log.warning("%s: %s", self.path, error)
        if (code & 0xFF in _REOPEN or code == _STALE) and self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _failure(self, error: Exception) -> MessagingError:
        """What to tell who asked. The file was open before, so that it cannot be now may pass."""
        if isinstance(error, ConfigurationError) and isinstance(error.__cause__, sqlite3.Error):
            failure = StoreError(str(error))
        elif isinstance(error, MessagingError):
            return error
        else:
            failure = StoreError(f"{self.path}: {error}")
        failure.__cause__ = error
        return failure

    # -- operations ----------------------------------------------------------------------

    def serve(self, group: list[Operation]) -> Served:
        """Run what has not been withdrawn; none at all means that leases are to be renewed."""
        writes = not group or any(operation.writes for operation in group)
        with self.lock.held() if writes else contextlib.nullcontext():
            group = self._begun(group)
            try:
                return self._together(group, writes)
            except _CommitError as error:
                return Served([(operation, self._failure(error)) for operation in group])
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY:
                    # Some other program holds SQLite's own lock: each alone would wait as long.
                    return Served([(operation, self._failure(error)) for operation in group])
                self._recover(error)
                return self._one_by_one(group, writes)
            except Exception as error:  # noqa: BLE001 - the thread must live on
                self._recover(error)
                return self._one_by_one(group, writes)

    def _begun(self, group: list[Operation]) -> list[Operation]:
        with self.mutex:
            begun = [operation for operation in group if operation.state == WAITING]
            for operation in begun:
                operation.state = RUNNING
        return begun

    def _together(self, group: list[Operation], writes: bool) -> Served:
        """One transaction for all of them."""
        db = self._connection()
        before = db.total_changes
        with self._transaction(db, writes):
            step = Step(db, self._clock(), self._space, self.holdings, self.grants)
            if writes:
                step.purge()  # first, so that a key past its time is free again
            answers = [(operation, _answer(operation, step)) for operation in group]
            if writes:
                for token, seconds in self.holdings.due():
                    step.renew(token, seconds)
                step.close()
        for operation, answer in answers:
            operation.answer = answer
        self.holdings.apply(step.held, step.released)
        changed = db.total_changes != before
        return Served(answers, step.topics, step.next_due, self._count() if changed else (0, 0))

    @contextlib.contextmanager
    def _transaction(self, db: sqlite3.Connection, writes: bool) -> Iterator[None]:
        db.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        try:
            yield
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        try:
            db.execute("COMMIT")
        except sqlite3.Error as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            self._recover(error)
            raise _CommitError(f"{error}; the outcome is unknown") from error

    def _one_by_one(self, group: list[Operation], writes: bool) -> Served:
        served = Served([])
        for operation in group:
            try:
                one = self._together([operation], writes)
                served.answers += one.answers
                served.topics = served.topics + one.topics
                served.due = min(served.due, one.due)
                served.writes = (served.writes[0] or one.writes[0], one.writes[1])
            except Exception as error:  # noqa: BLE001 - the thread must live on
                self._recover(error)
                served.answers.append((operation, self._failure(error)))
        return served

    def _renewed(self) -> Served:
        """Leases held during a session could not be renewed: now, before another process looks."""
        try:
            return self._together([], writes=True)
        except Exception as error:  # noqa: BLE001 - the session is committed, whatever this is
            self._recover(error)
            return Served([])

    def _count(self) -> tuple[int, int]:
        """Note the write for other processes; the count before and after."""
        before = self.lock.writes
        self.lock.count()
        return before, self.lock.writes

    # -- a transaction for the caller ------------------------------------------------------

    def lend(
        self, operation: Operation, loop: asyncio.AbstractEventLoop, told: Callable[[Served], bool]
    ) -> Served | None:
        """Open a transaction, hand it over, and end it as its owner says; the lock is held."""
        with self.lock.held():
            if not self._begun([operation]):
                return None
            try:
                db = self._connection()
                db.execute("BEGIN IMMEDIATE")
            except (sqlite3.Error, MessagingError) as error:
                self._recover(error)
                return Served([(operation, self._failure(error))])
            session = Session(db, loop)
            if not told(Served([(operation, session)])):
                session.abandon()  # the event loop is gone: nobody will end it
            run, answer = session.ended()
            ending = Operation(nothing, True, False, answer)
            try:
                step = Step(db, self._clock(), self._space, self.holdings, self.grants)
                verdict = session.finish(run, step)
            except Exception as error:  # noqa: BLE001 - the thread must live on
                self._recover(error)
                return Served([(ending, self._failure(error))])
            if step.written:
                self.holdings.apply(step.held, step.released)
            renewed = self._renewed()
            writes = self._count() if step.written else (0, 0)
            return Served([(ending, verdict)], step.topics + renewed.topics, step.next_due, writes)


class _CommitError(Exception):
    """The commit failed: whether it took effect is not known."""


def nothing(step: Step) -> None:
    """What only opens or ends a session has no step of its own."""


def _answer(operation: Operation, step: Step) -> Any:
    """What an operation says; a refusal in the library's own words is an answer too."""
    try:
        return operation.run(step)
    except MessagingError as error:
        return error
