"""One connection, and the store's functions called through it."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any, Final

import asyncpg

from ...errors import ConfigurationError
from . import faults
from .migrations import quoted
from .place import Place, drop

ISOLATION: Final = "TRANSACTION ISOLATION LEVEL READ COMMITTED"
"""What is read behind a lock is what its last holder left, whatever this user has by default."""
WAIT: Final = "lock_timeout = '100ms'"
"""So long one call is in the way of all others: what waits for more than a commit is put off."""
IDLE_SECONDS: Final = 3.0
"""So long a call that takes several steps may hang between two of them, because the event loop is
blocked: then the server ends it, with all that it locks."""
_UNDO: Final = "RESET lock_timeout; RESET default_transaction_isolation"
_BEGIN: Final = (
    f"BEGIN {ISOLATION}; SET LOCAL {WAIT};"
    f" SET LOCAL idle_in_transaction_session_timeout = '{IDLE_SECONDS} s'"
)
LEAVE_SECONDS = 1.0
_numbers = count()
"""Of statements: a pool's connection may still know those of an earlier session."""


class Call:
    """A function of the schema, and its arguments."""

    __slots__ = ("args", "name")

    def __init__(self, name: str, *args: Any) -> None:
        self.name = name
        self.args = args

    def sql(self, schema: str) -> str:
        """The statement."""
        places = ", ".join(f"${number}" for number in range(1, len(self.args) + 1))
        return f"SELECT * FROM {quoted(schema)}.{self.name}({places})"  # noqa: S608


class Session:
    """A connection in use.

    Each call is one round trip of one prepared statement. Behind a pooler the next transaction may
    be on another server connection, which knows nothing of ours: each call is a transaction of its
    own, set up and prepared anew in it.
    """

    def __init__(self, place: Place, connection: Any, schema: str, pooled: bool) -> None:
        self.connection = connection
        self.pooled = pooled
        self._place = place
        self._schema = schema
        self._prepared: dict[str, Any] = {}
        if pooled and _caches(connection):
            raise ConfigurationError(
                "a connection pooler stands before the database: make the pool with"
                " asyncpg.create_pool(..., statement_cache_size=0)"
            )

    async def set_up(self) -> None:
        """Before the first `ask`."""
        if not self.pooled:
            await self.connection.execute(f"SET SESSION CHARACTERISTICS AS {ISOLATION}; SET {WAIT}")

    async def ask(self, call: Call) -> list[Any]:
        """The rows that a function answers."""
        sql = call.sql(self._schema)
        if self.pooled:
            return await self._ask_once(sql, call.args)
        statement = self._prepared.get(sql)
        if statement is None:
            statement = self._prepared[sql] = await self._prepare(sql)
        found: list[Any] = await statement.fetch(*call.args)
        return found

    async def _prepare(self, sql: str) -> Any:
        try:
            # Without a name it would be parsed anew for each call: the driver keeps no statements.
            return await self.connection.prepare(sql, name=f"afk_{next(_numbers)}")
        except AttributeError as error:
            if not self.lost():
                raise
            # The driver takes several steps, and trips when the connection ends between two.
            raise asyncpg.InterfaceError("connection is closed") from error

    async def _ask_once(self, sql: str, args: tuple[Any, ...]) -> list[Any]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self.connection.execute(_BEGIN)
        try:
            rows: list[Any] = await self.connection.fetch(sql, *args)
        except asyncpg.PostgresError:
            await self.connection.execute("ROLLBACK")
            raise
        if loop.time() - began >= IDLE_SECONDS:
            await asyncio.sleep(0.01)  # to read whether it was ended: then nothing was stored
        await self.connection.execute("COMMIT")
        return rows

    def lost(self) -> bool:
        """Whether the connection is gone."""
        closed: bool = self.connection.is_closed()
        return closed

    def drop(self) -> None:
        """Let go of it at once: its state is not certain."""
        drop(self.connection)

    async def leave(self) -> None:
        """Let go of it in order, as it was: a pool may not see to that."""
        if self.lost():
            self.drop()
        elif not self.pooled:
            try:
                await self.connection.execute(_UNDO, timeout=LEAVE_SECONDS)
            except faults.DRIVER:
                self.drop()
        await self._place.leave(self.connection)


def _caches(connection: Any) -> bool:
    """Whether the driver keeps statements prepared by itself."""
    config = getattr(connection, "_config", None)
    return bool(getattr(config, "statement_cache_size", 0))
