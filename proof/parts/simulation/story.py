"""One story: agents at work on a shared store, everything that can go wrong, then peace, then a
verdict."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from functools import partial
from typing import Any, cast

from msgspec import Struct

from afk.messaging import RetryPolicy
from afk.messaging.testing.history import Event
from afk.messaging.testing.simulation import SimulatedLoop, simulate
from afk.messaging.testing.verdict import Rules, judge
from afk.messaging.testing.witness import note_the_end

from .acts import Acts
from .consumers import Consumer, Terms, terms
from .host import Host
from .notes import Notes, lines
from .server import Server
from .troubles import Troubles

AGENTS = ("ann", "bob", "cy")
SPAN = 2.0
"""Seconds in which things happen, by the story's clock."""
LONG = 0.2
"""Seconds of a block that a lease may not outlive, as shorter ones and slow calls add to it."""
MOST = 100_000
"""Callbacks after which it is taken for a story without an end; most have some hundred."""
PATIENCE = 300.0
"""Seconds after which everything must be worked off."""


class Told(Struct):
    """What became of a story."""

    wrong: list[str]
    counts: Counter[str]
    events: list[Event]

    @property
    def trace(self) -> bytes:
        """All that was seen, and how it ended; the same for the same seed."""
        ends = [f"{name} {count}" for name, count in sorted(self.counts.items())]
        return lines(self.events) + "\n".join([*ends, *self.wrong, ""]).encode()


def tell(seed: int) -> Told:
    """The story of a seed."""
    try:
        return simulate(Story(random.Random(~seed)).run(), seed, most=MOST)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is of this seed
        return Told([f"it ended with {error!r}"], Counter(), [])


class Slot:
    """Where a process runs, and when it was killed another one."""

    def __init__(self, story: Story, number: int) -> None:
        self._story = story
        self.number = number
        self.lives = 0
        self.work: list[Terms] = []
        self.consumers: list[asyncio.Task[None]] = []
        self.host = self._new()

    def _new(self) -> Host:
        self.lives += 1
        return self._story.host(f"p{self.number}.{self.lives}")

    def start(self) -> None:
        """Put its consumers to work, in a process that lives."""
        if self.host.gone:
            self.host = self._new()
        for number in range(len(self.work)):
            self.employ(number)

    def employ(self, number: int) -> None:
        """Put one consumer to work."""
        consumer = Consumer(self._story, self.host, self.work[number])
        task = self.host.start(consumer.run())
        self.consumers[number : number + 1] = [task]


class Story:
    """The play, and what all in it share."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.calm = False
        self.agents: tuple[str, ...] = AGENTS
        self.ids: list[str] = []
        self.onward: dict[str, list[str]] = {}
        """By token: the messages that were to leave with its ack."""
        self.events: list[Event] = []
        self.wrong: list[str] = []
        self._sent = 0
        self._calls: list[tuple[Host, asyncio.Task[None]]] = []
        self.rough = chance.choice((0.0, 0.1, 0.1, 0.3))
        self.deaf = chance.choice((0.0, 0.2, 1.0))
        self.retry = RetryPolicy(max_attempts=chance.randint(2, 4), base=0.2, cap=1.0)

    async def run(self) -> Told:
        """From the beginning to the end."""
        self.loop = cast("SimulatedLoop", asyncio.get_running_loop())
        self.notes = Notes("story", self.events)
        self.server = Server(lambda name: self.notes.note("redrive", id=name))
        self.wrong = self.server.wrong
        self._all: list[Host] = []
        self.slots = [Slot(self, number) for number in range(2)]
        await self._set_up()
        acts = self._act()
        await asyncio.gather(*acts)
        await self._called()
        await self._drain()
        await self._end()
        return self._told()

    # -- what those in it ask for --------------------------------------------------------

    def some_agent(self) -> str:
        """Anyone."""
        return self.chance.choice(self.agents)

    def some_host(self) -> Host:
        """A process; it may be dead."""
        return self.chance.choice(self.slots).host

    def some_mail(self, sender: str) -> tuple[str, Any]:
        """Recipient and content of a new letter; now and then to oneself, or to nobody."""
        if self.chance.random() < 0.02:
            return "nobody", self.content()
        others = [name for name in self.agents if name != sender]
        return self.chance.choice(others), self.content()

    def content(self) -> Any:
        """One that was never sent."""
        self._sent += 1
        return {"n": self._sent}

    def call(self, host: Host, work: Coroutine[Any, Any, None]) -> None:
        """A user's call begins; it has to end by itself."""
        self._calls.append((host, host.start(work)))

    def running(self) -> tuple[Host, asyncio.Task[None]] | None:
        """A user's call that is under way, if there is one."""
        calls = [(host, task) for host, task in self._calls if not (task.done() or host.gone)]
        return self.chance.choice(calls) if calls else None

    def block(self, seconds: float) -> None:
        """Nothing runs for so long; where that is long, leases end meanwhile."""
        self.loop.block(seconds)
        if seconds > LONG:
            for host in self._all:
                outcome = f"nothing ran for {seconds} s"
                self.notes.note("fault", process=host.name, outcome=outcome)

    def host(self, name: str) -> Host:
        """A new process."""
        options = {"retry": self.retry, "lease": 1.0 + self.chance.random()}
        host = Host(name, self.server, self.events, self.chance, options)
        if not self.calm:
            host.link.rough, host.link.deaf = self.rough, self.deaf
        self._all.append(host)
        return host

    # -- acts ----------------------------------------------------------------------------

    async def _set_up(self) -> None:
        self.steward = self.host("steward")
        self.steward.link.rough = 0.0
        for name in self.agents:
            ordered = self.chance.random() < 0.4
            capacity = self.chance.choice((3, 100, 100))
            await self.steward.bus.register(name, ordered=ordered, capacity=capacity)
        for name in self.agents:
            self.chance.choice(self.slots).work.append(terms(name, self.chance))
            if self.chance.random() < 0.3:
                self.chance.choice(self.slots).work.append(terms(name, self.chance))
        for slot in self.slots:
            slot.start()

    def _act(self) -> list[asyncio.Task[None]]:
        chance, acts, troubles = self.chance, Acts(self).all, Troubles(self).all
        tasks: list[asyncio.Task[None]] = [
            self.loop.create_task(self._later(partial(self._user, chance.choice(acts))))
            for _ in range(chance.randint(3, 9))
        ]
        tasks += [
            self.loop.create_task(self._later(chance.choice(troubles)))
            for _ in range(chance.randint(0, 4))
        ]
        tasks += [self.loop.create_task(self._later(self._look)) for _ in range(2)]
        return tasks

    async def _later(self, work: Any) -> None:
        await asyncio.sleep(SPAN * self.chance.random())
        await work()

    async def _user(self, act: Any) -> None:
        host = self.some_host()
        if not host.gone:
            self.call(host, act(host))

    async def _look(self) -> None:
        self.server.look()

    # -- the end -------------------------------------------------------------------------

    async def _called(self) -> None:
        """Wait for the calls of users."""
        for _, task in self._calls:  # more may come meanwhile
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()):
                raise error

    async def _drain(self) -> None:
        """No more trouble; what waits is worked off."""
        self.calm = True
        self.last_trouble = self.loop.time()
        for host in self._all:
            host.link.rough = host.link.deaf = host.link.down_until = 0.0
        for slot in self.slots:
            if slot.host.gone:
                slot.start()
        until = self.loop.time() + PATIENCE
        while left := self.server.open:
            if self.loop.time() > until:
                self.wrong.append(f"drain: after {PATIENCE} s {left} messages are open")
                return
            await asyncio.sleep(0.5)

    async def _end(self) -> None:
        for slot in self.slots:
            for task in slot.consumers:
                task.cancel()
            if slot.consumers:
                await asyncio.wait(slot.consumers)
            for task in slot.consumers:
                if not task.cancelled():
                    self.wrong.append(f"consumer: it ended with {task.exception()!r}")
        self.server.look()
        self.server.turns(self.onward)
        await note_the_end(self.steward.bus, self.notes, self.last_trouble)
        for host in self._all:
            if not host.gone:
                await host.bus.aclose()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            self.wrong.append(f"left: {sorted(map(repr, left))}")
        if self.server.heard:
            self.wrong.append("left: someone still listens")

    def _told(self) -> Told:
        verdict = judge(self.events, Rules(max_attempts=self.retry.max_attempts))
        wrong = [*self.wrong, *verdict.violations]
        wrong += [f"uncaught: {failure['message']}" for failure in self.loop.failures]
        counts = Counter(verdict.counts)
        counts["callbacks"] = self.loop.ticks
        counts["looks"] = self.server.looks
        return Told(wrong, counts, self.events)
