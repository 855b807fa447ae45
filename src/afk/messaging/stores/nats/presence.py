"""A process's presence at a NATS system: its link, the keeper of its leases, who waits in it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from msgspec.structs import replace

from ...errors import ConfigurationError
from ...hints import Bells, brought
from ...lifecycle import parse_token
from ...log import log
from ...store import MAIL, Batch, Bell, Capabilities, Claim, Durability, Leased, Turn, Verdict
from ..keeping import Keeper
from ..ledger import Ledger
from .compaction import Compaction
from .link import Link
from .place import Place
from .renewal import Renewal
from .replica import Step
from .rounds import noted
from .steps import Take
from .stream import Info, Names

JITTER = 0.01
"""Seconds in which the processes that wait for the same moment spread their looks."""
_SWEEP = Take(Claim(mailbox="", limit=0))


class Presence:
    """What a store has while it is open. wanted: the durability that was asked for."""

    def __init__(
        self,
        place: Place,
        namespace: str,
        replicas: int | None,
        wanted: Durability | None,
        patience: float,
        clock: Callable[[], float] | None,
    ) -> None:
        self._place = place
        self._names = Names(namespace)
        self._replicas = replicas
        self._wanted = wanted
        self._patience = patience
        self._clock = clock
        self._untold: list[str] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = float("inf")
        self._looking: asyncio.Task[None] | None = None
        self._bells = Bells()
        self._foretold: set[str] = set()
        self._catching_up: dict[str, list[asyncio.Event]] = {}
        self.capabilities = Capabilities(
            durability=wanted or "process",
            asserted=wanted == "disk",
            shared=True,
            renews_when_blocked=True,
        )
        self.link: Link
        self.keeper: Keeper
        self._compaction: Compaction

    @property
    def ledger(self) -> Ledger:
        """The state, as far as this process has read the log."""
        return self.link.replica.ledger

    async def open(self) -> None:
        """Connect; StoreError or ConfigurationError if that cannot be."""
        self._loop = asyncio.get_running_loop()
        self.link = Link(
            self._place,
            self._names,
            self._patience,
            self._replicas,
            self._clock,
            self._stepped,
            self._renewed,
            self._untold.extend,
        )
        self._renewing = Renewal(self._place, self._names)
        self.keeper = Keeper("afk-nats keeper", lambda: self._renewing)
        self._compaction = Compaction(self._place, self._names)
        await self.link.open()

    async def close(self) -> None:
        """Let what is on its way arrive, and let go of all."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
            self._looking = None
        await self.keeper.close()
        await self._compaction.close()
        await self.link.close()

    # -- who died ------------------------------------------------------------------------

    def batch(self, leased: tuple[Leased, ...], died: tuple[str, ...] = ()) -> Batch:
        """An answer to a claim, with who died in looks that nobody asked for."""
        return Batch(leased, (*self._told(), *died))

    def with_untold(self, verdicts: list[Verdict]) -> tuple[Verdict, ...]:
        """The same for a put."""
        if self._untold:
            verdicts[0] = replace(verdicts[0], died=(*self._told(), *verdicts[0].died))
        return tuple(verdicts)

    def _told(self) -> list[str]:
        untold = self._untold[:]
        self._untold.clear()
        return untold

    def lease_left(self, token: str) -> float:
        """Seconds until the lease of a token ends, as far as is known."""
        row = self.ledger.books.rows.get(parse_token(token)[0])
        return 0.0 if row is None else row.past.lease_end - self.link.now()

    # -- what the log brings -------------------------------------------------------------

    def _stepped(self, step: Step) -> None:
        """A group took effect: tell those whom it concerns."""
        if self._bells:
            for topic in step.news:
                self._bells.ring(topic)
            self._arm()
        renewed = step.writer == self._renewing.writer
        if renewed:
            for token in self._renewing.lost(step):
                self.keeper.release(token)
        if step.image_due and (renewed or step.writer == self.link.lane.writer):
            self._compaction.start(self.link.created)

    def _renewed(self, info: Info, anew: bool) -> None:
        """There is a new connection; with a state read anew nobody knows what they missed."""
        self._trust(info)
        if anew:
            for topic in self._bells.topics():
                self._bells.ring(topic)
            self._arm()

    def _trust(self, info: Info) -> None:
        """What the stream's settings promise. The servers do not tell how often they sync."""
        kept = info.config.storage == "file" and info.config.persist_mode != "async"
        most: Durability = "process" if kept else "memory"
        if self._wanted is not None and not kept and self._wanted != "memory":
            raise ConfigurationError(
                f"durability: stream {self._names.log} gives {most!r}, not {self._wanted!r}: its"
                f" storage is {info.config.storage}, its persist_mode {info.config.persist_mode}"
            )
        self.capabilities = replace(self.capabilities, durability=self._wanted or most)

    # -- time, and those who wait --------------------------------------------------------

    def listen(self, topic: str) -> Bell:
        """Hear of a topic."""
        bell = self._bells.listen(topic)
        self._arm()
        return bell

    def foretell(self, turns: tuple[Turn, ...]) -> None:
        """Wake who waits for mail that these turns will bring if they are taken: it claims at
        once, and so in the same group, behind them."""
        if self._bells:
            for topic in brought(turns):
                if topic.startswith(MAIL) and self._bells.ring(topic):
                    self._foretold.add(topic)
                    for news in self._catching_up.get(topic, ()):
                        news.set()

    def landed(self, turns: tuple[Turn, ...]) -> None:
        """What they brought is in the log: nobody is to go by what was foretold any more."""
        if self._foretold:
            self._foretold.difference_update(brought(turns))

    def foretold(self, mailbox: str) -> bool:
        """Whether its mail is foretold, and this is the first to go by it."""
        topic = MAIL + mailbox
        told = topic in self._foretold
        self._foretold.discard(topic)
        return told

    async def catch_up(self, mailbox: str) -> bool:
        """Know all that was in the log when this was asked; True if its mail is foretold sooner,
        and this the first to go by it."""
        self.link.lane.check()
        topic, news = MAIL + mailbox, asyncio.Event()
        fresh = self._loop.create_task(self.link.fresh())
        fresh.add_done_callback(noted)
        fresh.add_done_callback(lambda _: news.set())
        others = self._catching_up.setdefault(topic, [])
        others.append(news)
        try:
            while not fresh.done():
                await news.wait()
                news.clear()
                if self.foretold(mailbox):
                    return True
        finally:
            others.remove(news)
            if not others:
                del self._catching_up[topic]
        fresh.result()
        return False

    def _arm(self) -> None:
        """Have the alarm sound when time next brings something about."""
        at = self.ledger.next_due()
        if self._alarm is not None:
            if self._alarm_at <= at:
                return
            self._alarm.cancel()
            self._alarm = None
        if at != float("inf"):
            self._alarm_at = at
            wait = max(0.0, at - self.link.now()) + random.random() * JITTER
            self._alarm = self._loop.call_later(min(wait, 86_400.0), self._sound)

    def _sound(self) -> None:
        """Let time pass, unless nobody waits or another process has been faster."""
        self._alarm = None
        if not self._bells or self._looking is not None:
            return
        if self.ledger.next_due() > self.link.now():
            self._arm()
            return
        self._looking = self._loop.create_task(self._let_time_pass())

    async def _let_time_pass(self) -> None:
        try:
            [batch] = await self.link.lane.do(_SWEEP)
            self._untold += batch.died
            if self.ledger.next_due() <= self.link.now():
                await self.link.fresh()  # the server's clock was set back: hear what it says now
        except Exception as error:  # noqa: BLE001 - the store failed: who waits looks for itself
            log.warning("%s: time was not let pass: %s", self._place.shown, error)
            await asyncio.sleep(1.0)
        self._looking = None
        self._arm()
