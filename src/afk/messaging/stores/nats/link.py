"""A process's way to the log: one connection, made anew whenever it is over."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from ...errors import ConfigurationError, MessagingError, StoreError
from ...lifecycle import RetryPolicy
from ...log import log
from ..ending import ended
from .lane import Lane
from .place import Place, UnreachableError
from .replica import Replica, Step
from .rounds import Rounds
from .session import Session
from .stream import Info, Names, RefusedError

BACKOFF = RetryPolicy(base=0.05, cap=1.0)
LASTED = 1.0
"""Seconds after which a connection that is lost had been a good one."""


class Link:
    """patience: seconds a call waits before it fails. replicas: of the stream, if it is made.
    clock: instead of the server's, for tests. stepped: called when a group of anyone took effect;
    renewed: when there is a new connection, and whether the state had to be read anew; untold: with
    who died in a call that nobody waits for."""

    def __init__(
        self,
        place: Place,
        names: Names,
        patience: float,
        replicas: int | None,
        clock: Callable[[], float] | None,
        stepped: Callable[[Step], None],
        renewed: Callable[[Info, bool], None],
        untold: Callable[[tuple[str, ...]], None],
    ) -> None:
        self._place = place
        self._names = names
        self._patience = patience
        self._copies = replicas
        self._clock = clock
        self._news = stepped
        self._renewed = renewed
        self._loop = asyncio.get_running_loop()
        self._session: Session | None = None
        self._up = asyncio.Event()
        self._over = asyncio.Event()
        self._broken: Exception | None = None
        self._trouble: Exception | None = None
        self._unseen: Exception | None = None
        self._created = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._rounds = Rounds(self._look_around, patience)
        self.lane = Lane(place.shown, patience, clock, untold)
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
                wrong = isinstance(error, RefusedError) and error.error.code == 400
                if wrong or self._loop.time() >= end:
                    raise StoreError(f"{error}; nothing was stored") from error
                await asyncio.sleep(BACKOFF.base)
        self._tasks = [self._loop.create_task(work()) for work in (self._stay, self.lane.drive)]

    async def close(self) -> None:
        """Let what is on its way arrive, then let go of the connection."""
        if not self._tasks:
            return
        await self.lane.close()
        await ended(*self._tasks)
        self._broken = StoreError(f"{self._place.shown}: closed")
        self._up.set()
        if self._session is not None:
            await self._session.close()
        await self._rounds.close()

    async def _connect(self) -> None:
        self._over.clear()
        session = Session(
            self._place,
            self._names,
            own=self.lane.ops,
            stepped=self._stepped,
            stored=self.lane.stored,
            ended=self._ended,
        )
        known = self.replica if self._created else None
        await session.open(known, self._created, self._copies)
        try:
            if session.over:
                raise StoreError(f"{self._place.shown}: the connection was lost")
            self._renewed_at(session, session.replica is not known)
        except MessagingError:
            await session.close()
            raise
        self._session = session
        self._up.set()
        await self.lane.up(session)

    def _renewed_at(self, session: Session, anew: bool) -> None:
        self.replica, self._created = session.replica, session.info.created
        if session.info.ts is not None:
            self._rounds.heard(session.info.ts.timestamp(), session.informed_at)
        self._renewed(session.info, anew)

    async def _stay(self) -> None:
        """Have a connection: whenever one is over, make another."""
        failures, since = 0, self._loop.time()
        while True:
            await self._over.wait()
            if self._session is not None:
                failures = 0 if self._loop.time() - since > LASTED else failures + 1
                session, self._session = self._session, None
                await session.close()
            if isinstance(self._trouble, ConfigurationError):
                self._give_up(self._trouble)
                return
            if failures:
                await asyncio.sleep(BACKOFF.delay(failures, random.random()))
            try:
                await self._connect()
                since = self._loop.time()
            except ConfigurationError as error:
                self._give_up(error)
                return
            except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
                self._ended(error)
                failures += 1

    def _give_up(self, error: ConfigurationError) -> None:
        """What is there is not what was there: no call is answered any more."""
        log.error("%s", error)
        self._broken = error
        self.lane.fail(error)
        self._up.set()

    # -- what a connection tells ---------------------------------------------------------

    def _ended(self, error: Exception | None) -> None:
        log.debug("%s: %s", self._place.shown, error)
        self._trouble = error
        self._up.clear()
        self.lane.down(error)
        self._over.set()

    def _stepped(self, step: Step) -> None:
        self.lane.stepped(step)
        self._news(step)

    # -- knowing where the log is --------------------------------------------------------

    async def fresh(self) -> float:
        """Know all that was in the log, or on its way there, when this was asked; the time then."""
        self.lane.check()
        if self.lane.busy:
            await self.lane.do()
        try:
            await self._rounds.next()
        except TimeoutError:
            raise StoreError(self.lane.silence("nothing was stored", self._unseen)) from None
        return self.now()

    @property
    def created(self) -> str:
        """Which log it is."""
        return self._created

    def now(self) -> float:
        """The server's time, as far as it is known without asking."""
        if self._clock is not None:
            return self._clock()
        return max(self.replica.now, self._rounds.time())

    async def _look_around(self) -> float:
        while True:
            session = await self._connected()
            try:
                time = (await session.fresh()).timestamp()
            except MessagingError as error:
                self._unseen = error
                await asyncio.sleep(BACKOFF.base)
            else:
                self._unseen = None
                return time

    async def _connected(self) -> Session:
        await self._up.wait()
        if self._broken is not None or self._session is None:
            raise StoreError(str(self._broken))
        return self._session
