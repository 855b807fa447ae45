"""A process's presence at a server: its link, its ears, the keeper of its leases."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ReadOnlyError

from ...hints import Bells
from ...log import log
from ...store import Capabilities, Durability
from ..keeping import Keeper
from . import codec, scripts
from .calls import Args
from .ears import Ears
from .link import Link
from .place import Place
from .renewal import Renewal
from .sentinels import Address, Lookout
from .server import Server, greet, promised


class Presence:
    """What a store has while it is open.

    wanted: the durability that was asked for; look: lets time pass, and answers who died.
    """

    def __init__(
        self,
        place: Place,
        prefix: str,
        wanted: Durability | None,
        patience: float,
        clock: Callable[[], float] | None,
        look: Callable[[], Awaitable[tuple[str, ...]]],
    ) -> None:
        self._place = place
        self._prefix = prefix
        self._wanted = wanted
        self._patience = patience
        self._clock = clock
        self._look = look
        self._epoch = ""
        self._me = secrets.token_hex(8)
        self._looking: set[asyncio.Task[None]] = set()
        self._lookout: Lookout | None = None
        self._loop: asyncio.AbstractEventLoop
        self.bells = Bells()
        self.untold: list[str] = []
        """Who died in a call that nobody waited for: for the next one that can report it."""
        self.capabilities = Capabilities(
            durability=wanted or "memory", shared=True, renews_when_blocked=True
        )
        self.link: Link
        self.ears: Ears
        self.keeper: Keeper

    async def open(self) -> None:
        """Connect; StoreError or ConfigurationError if that cannot be."""
        self._loop = asyncio.get_running_loop()
        self._epoch = ""
        self.link = Link(self._place, self._greet, self._patience, self._heard)
        wakes = f"{self._prefix}wake:{self._me}"
        self.ears = Ears(
            self._place, wakes, self.bells, self._start_look, self._switched, self._patience
        )
        self.keeper = Keeper("afk-redis keeper", self._renewer)
        await self.link.open()
        if self._place.watchers is not None:
            self._lookout = Lookout(self._place.watchers, self._switched)

    async def close(self) -> None:
        """Let what is on its way arrive, and let go of all."""
        for looking in self._looking:
            looking.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)
        if self._lookout is not None:
            await self._lookout.close()
            self._lookout = None
        await self.ears.close()
        await self.keeper.close()
        await self.link.close()

    # -- asking --------------------------------------------------------------------------

    def call(self, script: str, *args: Any) -> Args:
        """The command that runs a script."""
        now = "" if self._clock is None else round(self._clock() * 1000)
        head = ("EVALSHA", scripts.digest(script), 1, self._prefix, now, self._epoch, self._me)
        return *head, *args

    async def ask(self, script: str, *args: Any, repeatable: bool = False) -> tuple[Any, ...]:
        """What a script answers, without the news, which are told: (who died, ...)."""
        answer = await self.link.ask(self.call(script, *args), repeatable=repeatable)
        died, _, *rest = answer
        return codec.texts(died), *rest

    def _heard(self, answer: Any, waited_for: bool) -> None:
        """The news of an answer, whoever asked, and whether they still wait for it."""
        died, topics, *_ = answer
        if topics:
            self.ears.told(codec.texts(topics))
        if died and not waited_for:
            self.untold += codec.texts(died)

    # -- connections ---------------------------------------------------------------------

    async def _greet(self, connection: AbstractConnection) -> None:
        first = not self._epoch
        server = await greet(connection, self._prefix, secrets.token_hex(8) if first else "")
        if not self._place.settled():
            raise ReadOnlyError("another server is the primary by now")
        self._trust(server, first)
        if first:
            self._epoch = server.epoch
        self.ears.renew()
        self.keeper.renew()

    def _switched(self, address: Address) -> None:
        """Another server is the primary, or has the namespace's slot."""
        if address != self._place.current:
            self._place.redirect(address)
            self.link.renew()

    def _trust(self, server: Server, first: bool) -> None:
        durability, asserted = promised(server, self._wanted)
        if not first and durability != self.capabilities.durability:
            log.warning("%s: durability is now %r", self._place.shown, durability)
        self.capabilities = Capabilities(
            durability=durability, asserted=asserted, shared=True, renews_when_blocked=True
        )

    def _renewer(self) -> Renewal:
        """Made in the keeper's thread, for that."""
        return Renewal(self._keepers_link, self.call)

    def _keepers_link(self) -> Link:

        async def greet_again(connection: AbstractConnection) -> None:
            await greet(connection, self._prefix, "")

        def heard(answer: Any, waited_for: bool) -> None:
            self._loop.call_soon_threadsafe(self._heard, answer, waited_for)

        return Link(self._place.own(), greet_again, self._patience, heard)

    # -- time ----------------------------------------------------------------------------

    def _start_look(self) -> None:
        looking = asyncio.create_task(self._let_time_pass())
        self._looking.add(looking)
        looking.add_done_callback(self._looking.discard)

    async def _let_time_pass(self) -> None:
        try:
            self.untold += await self._look()
        except Exception as error:  # noqa: BLE001 - the store failed: who waits looks for itself
            log.warning("%s: time was not let pass: %s", self._place.shown, error)
            self.ears.expect(1.0)
