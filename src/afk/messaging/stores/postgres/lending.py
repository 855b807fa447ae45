"""A transaction lent to a handler, and sends inside a transaction of the caller's own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from ...errors import StoreError, UsageError
from ...store import Refusal, Turn, Verdict
from . import faults
from .batches import Batch, News, Turns
from .operations import Put
from .presence import Presence
from .session import Call


async def begin(here: Presence) -> Lent:
    """A transaction on a connection of its own."""
    try:
        connection = await here.place.lend()
    except (TimeoutError, *faults.DRIVER) as error:
        raise StoreError(f"{here.place.shown}: no transaction can be opened: {error}") from error
    lent = Lent(here, connection)
    try:
        await lent.start()
    except BaseException:
        await lent.discard()
        raise
    return lent


class Lent:
    """Between `start` and its end the connection is the caller's."""

    def __init__(self, here: Presence, connection: Any) -> None:
        self.connection = connection
        self._here = here
        self._transaction = connection.transaction(isolation="read_committed")

    async def start(self) -> None:
        """Open it."""
        try:
            await self._transaction.start()
        except faults.DRIVER as error:
            raise self._failure(error) from error

    async def commit(self, turn: Turn) -> Verdict:
        """Apply the turn and commit it with the caller's writes; a refusal undoes both."""
        verdict: Verdict = await self._ending(self._commit(turn))
        return verdict

    async def rollback(self) -> None:
        """Undo the caller's writes."""
        await self._ending(self._undo())

    async def discard(self) -> None:
        """Let go of the connection, whatever its state."""
        self.connection.terminate()
        await self._here.place.leave(self.connection)

    async def _ending(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The transaction ends whatever becomes of this task, and before it goes on: what it asks
        later is asked of a store in which that is settled."""
        ending = asyncio.ensure_future(self._end(work))
        try:
            return await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait([ending], timeout=self._here.patience)
            if not ending.done():
                self.connection.terminate()
            raise

    async def _end(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            answer = await work
        except faults.DRIVER as error:
            await self.discard()
            raise self._failure(error) from error
        except BaseException:
            await self.discard()
            raise
        await self._here.place.leave(self.connection)
        return answer

    def _failure(self, error: BaseException) -> StoreError:
        outcome = "the outcome is unknown" if faults.is_unknown(error) else "nothing was stored"
        return StoreError(f"{self._here.place.shown}: the transaction failed ({error}); {outcome}")

    async def _commit(self, turn: Turn) -> Verdict:
        if not self.connection.is_in_transaction():
            raise StoreError("the transaction was ended by a statement in it; nothing was stored")
        news = Later()
        verdict = await put(self._here, self.connection, turn, news)
        if verdict.refusal is not None:
            await self._undo()
            return Verdict(verdict.refusal)  # who died has not, after all
        await self._transaction.commit()
        news.tell(self._here)
        self._here.keeper.settled(turn)
        return verdict

    async def _undo(self) -> None:
        if self.connection.is_in_transaction():
            await self._transaction.rollback()


class Later:
    """News, until the transaction has committed."""

    def __init__(self) -> None:
        self.named: list[str] = []
        self.due: list[float] = []
        self._died: list[str] = []

    def topics(self, topics: list[str]) -> None:
        """Those who wait for these should look."""
        self.named += topics

    def soon(self, seconds: float) -> None:
        """Something is due then."""
        self.due.append(seconds)

    def untold(self, died: Iterable[str]) -> None:
        """These died in a call that nobody waits for."""
        self._died += died

    def tell(self, news: News) -> None:
        """Pass it on."""
        news.topics(self.named)
        news.untold(self._died)
        for seconds in self.due:
            news.soon(seconds)


async def put(here: Presence, connection: Any, turn: Turn, news: News) -> Verdict:
    """Take a turn in the transaction that is open on a connection."""
    operation = Put((turn,), asyncio.get_running_loop().create_future(), 0.0)
    turns = Turns()
    turns.add((operation, 0), turn)
    batches: list[Batch] = [turns]
    while batches:
        batch = batches.pop()
        call = batch.call(here.keeper)
        rows = await _fetch(here, connection, call)
        batches += batch.answered(rows, news)
    [verdict] = operation.future.result()
    assert isinstance(verdict, Verdict)
    return verdict


async def _fetch(here: Presence, connection: Any, call: Call) -> list[Any]:
    whole = Call(call.name, *here.head(), *call.args)
    rows: list[Any] = await connection.fetch(whole.sql(here.schema), *whole.args)
    return rows


async def put_within(here: Presence, connection: Any, turn: Turn) -> Verdict:
    """Take the turn in the caller's transaction; a refusal leaves nothing of it."""
    _check(connection)
    news = Later()
    try:
        async with connection.transaction():  # a savepoint: theirs stays usable
            [[known, isolation]] = await _fetch(here, connection, Call("is_here", here.mark))
            if isolation != "read committed":
                raise UsageError(_ISOLATED.format(isolation))
            if not known:
                raise UsageError(_ELSEWHERE)
            verdict = await put(here, connection, turn, news)
            if verdict.refusal is not None:
                raise _RefusedError(verdict.refusal)
            if notification := here.ears.word(news.named, news.due):
                await _fetch(here, connection, Call("tell", *notification, False))
    except _RefusedError as refused:
        return Verdict(refused.refusal)
    except (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError) as error:
        raise UsageError(_ELSEWHERE) from error
    except faults.DRIVER as error:
        raise StoreError(f"{here.place.shown}: not sent ({error}); nothing was stored") from error
    return verdict


def _check(connection: Any) -> None:
    if not isinstance(connection, asyncpg.Connection | PoolConnectionProxy):
        raise UsageError(
            "connection: an asyncpg connection to the bus's database is needed, not"
            f" {type(connection).__name__}"
        )
    if connection.is_closed() or not connection.is_in_transaction():
        raise UsageError(
            "connection: no transaction is open on it; send inside `async with"
            " connection.transaction():`"
        )


_ISOLATED = (
    "connection: in a {} transaction a send cannot see what others sent; open it with"
    " connection.transaction(isolation='read_committed')"
)
_ELSEWHERE = "connection: it is to another database than the bus's; use one to the same database"


class _RefusedError(Exception):
    """Undoes the savepoint."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__()
        self.refusal = refusal
