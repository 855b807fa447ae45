"""A process's presence at a database: its lane, its ears, the keeper of its leases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from ...errors import ConfigurationError, StoreError
from ...hints import Bells
from ...lifecycle import parse_token
from ...log import log
from ...store import FATE, MAIL, Capabilities, Durability
from ..keeping import Keeper
from . import server
from .ears import Ears, Looked, channel_of, split
from .lane import Lane
from .migrations import migrate, quoted, version_of
from .place import Place, drop
from .session import Session

TIDY_EVERY, TIDIED = 5.0, 500
"""Seconds between tidyings while there is traffic; rows let go of in one call."""


class Presence:
    """What a store has while it is open.

    wanted: the durability that was asked for; clock: for tests, None for the server's.
    """

    def __init__(
        self,
        place: Place,
        schema: str,
        namespace: str,
        wanted: Durability | None,
        patience: float,
        clock: Callable[[], float] | None,
    ) -> None:
        self.place = place
        self.schema = schema
        self._namespace = namespace
        self._wanted = wanted
        self.patience = patience
        self._clock = clock
        self._here = 0
        self.mark: Any = None
        """By which the namespace is told from another database's."""
        self._opened = False
        self._looking: set[asyncio.Task[None]] = set()
        self._tidy_at = 0.0
        self.bells = Bells()
        self.died: list[str] = []
        """Who died in a call that nobody waited for: for the next one that can report it."""
        self.capabilities = _capabilities(wanted or "disk", False, True)
        self.lane: Lane
        self.ears: Ears
        self.keeper: Keeper

    async def open(self) -> None:
        """Connect; StoreError or ConfigurationError if that cannot be."""
        self._opened, self.mark = False, None
        shown = self.place.shown
        channel = channel_of(self.schema, self._namespace)
        self.keeper = Keeper("afk-postgres keeper", self._renewer)
        self.lane = Lane(shown, self._greet, self.head, self.patience, self, self.keeper)
        self.ears = Ears(shown, channel, self.bells, self._plain, self._look, self._tell)
        await self.lane.open()
        self._opened = True

    async def close(self) -> None:
        """Let what is on its way arrive, and let go of all."""
        await self.ears.close()
        await self.keeper.close()
        await self.lane.close()
        await self.place.close()

    def head(self) -> tuple[Any, ...]:
        """What every function begins with: the time, if it is not the server's, and the space."""
        return None if self._clock is None else self._clock(), self._here

    # -- connections ---------------------------------------------------------------------

    async def _plain(self) -> Session:
        """A connection, looked at and set up, and not greeted."""
        connection = await self.place.connect()
        try:
            async with connection.transaction():
                found = await server.ask(connection)
            session = Session(self.place, connection, self.schema, found.pooled)
            await session.set_up()
            return session
        except BaseException:
            drop(connection)
            await self.place.leave(connection)
            raise

    async def _greet(self) -> Session:
        """The lane's: to a server that takes writes, whose schema is as it must be."""
        session = await self._plain()
        try:
            async with session.connection.transaction():
                found = await server.ask(session.connection)
            if not found.takes_writes:
                raise OSError("the server takes no writes: it is a standby, or read-only")
            self._trust(found)
            await self._enter(session.connection)
            if self._opened:
                self.keeper.renew()
            return session
        except BaseException:
            session.drop()
            await session.leave()
            raise

    async def _enter(self, connection: Any) -> None:
        """Find the namespace: made on first use, and the same as before ever after."""
        if self.mark is None:
            await migrate(connection, self.schema)
        async with connection.transaction(isolation="read_committed"):
            if self.mark is not None and not await version_of(connection, self.schema):
                raise OSError(_ANOTHER)
            here, mark = await connection.fetchrow(
                f"SELECT * FROM {quoted(self.schema)}.open_space($1)",  # noqa: S608
                self._namespace,
            )
            if self.mark not in (None, mark):
                raise OSError(_ANOTHER)
        self._here, self.mark = here, mark

    def _trust(self, found: server.Server) -> None:
        server.check(found)
        durability, asserted = server.promised(found, self._wanted)
        if self._opened and durability != self.capabilities.durability:
            log.warning("%s: durability is now %r", self.place.shown, durability)
        renews = self.place.own() is not None
        self.capabilities = _capabilities(durability, asserted, renews)

    def _renewer(self) -> _Renewer:
        """Made in the keeper's thread, for that."""
        place = self.place.own()
        assert place is not None
        there = Presence(place, self.schema, self._namespace, None, self.patience, self._clock)
        return _Renewer(there, self._here)

    # -- news ------------------------------------------------------------------------------

    def topics(self, topics: list[str]) -> None:
        """Those who wait for these should look."""
        self.ears.topics(topics)

    def soon(self, seconds: float) -> None:
        """Something is due then."""
        self.ears.soon(seconds)

    def untold(self, died: Iterable[str]) -> None:
        """These died in a call that nobody waits for."""
        self.died += died

    async def _look(self, topics: list[str]) -> Looked:
        boxes, ids = split(topics)
        [row] = await self.lane.ask("look", boxes, ids, repeatable=True)
        self.died += row["died"]
        fates = [*row["fates"], *row["died"]]
        return [*map(MAIL.__add__, row["mail"]), *map(FATE.__add__, fates)], row["due"]

    async def _tell(self, channel: str, payload: str) -> None:
        await self.lane.ask("tell", channel, payload, True, repeatable=True)

    # -- letting go ------------------------------------------------------------------------

    def tidy(self) -> None:
        """Let go of what is not to be kept any longer, if that was not done lately."""
        now = asyncio.get_running_loop().time()
        if now >= self._tidy_at:
            self._tidy_at = now + TIDY_EVERY
            tidying = asyncio.create_task(self._tidy())
            self._looking.add(tidying)
            tidying.add_done_callback(self._looking.discard)

    async def _tidy(self) -> None:
        try:
            while (await self.lane.ask("tidy", TIDIED, repeatable=True))[0][0] == TIDIED:
                pass
        except (StoreError, ConfigurationError) as error:
            log.warning("%s: not tidied: %s", self.place.shown, error)


_ANOTHER = (
    "it has lost this namespace: it was emptied, or is another database than before; restart what"
    " uses it, so that its mailboxes are registered again"
)


class _Renewer:
    """A lane of the keeper's own."""

    def __init__(self, there: Presence, here: int) -> None:
        self._there = there
        self._lane = Lane(
            there.place.shown,
            there._plain,
            lambda: (there.head()[0], here),
            there.patience,
            there,
            (),
        )

    async def open(self) -> None:
        """Connect."""
        await self._lane.open()

    async def renew(self, due: list[tuple[str, float]]) -> list[str]:
        """The tokens that are not held any more."""
        ids, fences = zip(*(parse_token(token) for token, _ in due), strict=True)
        [[lost]] = await self._lane.ask(
            "renew", ids, fences, [seconds for _, seconds in due], repeatable=True
        )
        return [due[place - 1][0] for place in lost]

    async def close(self) -> None:
        """Let go of the connection."""
        await self._lane.close()


def _capabilities(durability: Durability, asserted: bool, renews: bool) -> Capabilities:
    return Capabilities(
        durability=durability,
        asserted=asserted,
        shared=True,
        renews_when_blocked=renews,
        transactions=True,
        outbox=True,
    )
