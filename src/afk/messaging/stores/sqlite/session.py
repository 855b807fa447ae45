"""A write transaction lent to the caller, who ends it from the event loop."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
from collections.abc import Callable

from ...errors import StoreError
from ...store import Turn, Verdict
from .put import take_turn
from .step import Step

Run = Callable[[Step], Verdict] | None


class Session:
    """Made and ended by the writer thread; between, the connection is the caller's."""

    def __init__(self, db: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        self.connection = db
        self._loop = loop
        self._end: queue.SimpleQueue[tuple[Run, asyncio.Future[Verdict | None]]] = (
            queue.SimpleQueue()
        )
        # The caller may write, but ending the transaction is the store's to do.
        db.set_authorizer(_forbid_ending)

    # -- for the event loop --------------------------------------------------------------

    async def commit(self, turn: Turn) -> Verdict:
        """Apply the turn and commit it with the caller's writes; a refusal undoes both."""
        verdict = await self._finish(lambda step: take_turn(step, turn))
        assert verdict is not None
        return verdict

    async def rollback(self) -> None:
        """Undo the caller's writes."""
        await self._finish(None)

    def abandon(self) -> None:
        """Roll back, with nobody waiting for it."""
        self._end.put((None, self._loop.create_future()))

    async def _finish(self, run: Run) -> Verdict | None:
        answer: asyncio.Future[Verdict | None] = self._loop.create_future()
        self._end.put((run, answer))
        # The transaction ends whatever becomes of this task.
        return await asyncio.shield(answer)

    # -- for the thread ------------------------------------------------------------------

    def ended(self) -> tuple[Run, asyncio.Future[Verdict | None]]:
        """Wait until the caller is done."""
        run, answer = self._end.get()
        self.connection.set_authorizer(None)
        self.connection.row_factory = None
        self.connection.text_factory = str
        return run, answer

    def finish(self, run: Run, step: Step) -> Verdict | None:
        """Commit or roll back."""
        db = self.connection
        if run is None:
            if db.in_transaction:
                db.execute("ROLLBACK")
            return None
        if not db.in_transaction:
            raise StoreError("the transaction was undone by the failure of a statement in it")
        try:
            verdict = run(step)
            if verdict.refusal is None:
                step.close()
                db.execute("COMMIT")
                step.written = True
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
        return verdict


def _forbid_ending(action: int, *_: object) -> int:
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION else sqlite3.SQLITE_OK
