"""A batch of kills: clients at work, killed and started again; then a verdict on all they saw."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import time
import uuid
from bisect import bisect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from random import Random
from sqlite3 import connect as open_file
from typing import Any

from afk.messaging import Delivery, MessageBus, connect
from afk.messaging.testing.history import SERVER, Event, History, read
from afk.messaging.testing.processes import Process, Work, run
from afk.messaging.testing.steps import Effects
from afk.messaging.testing.verdict import Parts, Rules, judge
from afk.messaging.testing.witness import Witness, note_the_end

from ...place import Place
from ...trial import Ground, Outcome
from . import clients
from .clients import BOXES, EFFECT, GRAVE, LEASE, MAIL, NEXT, STUBBORN
from .steps import hit

LIFE = 0.3
"""Seconds that a client lives at most, once it is at work."""
RECOVERY = LEASE + 2.0
BUSY = 15.0
"""Seconds more that a loaded machine may take."""
STARTING = 60.0
LONG = 3600.0
DRAINING = 120.0


class Batch:
    """One place, its notes, and who works there."""

    def __init__(self, ground: Ground, seed: int) -> None:
        self.ground = ground
        self.rng = Random(seed)
        self.name = uuid.uuid4().hex
        self.notes = ground.folder / f"notes-{self.name}"
        self.notes.mkdir()
        self.file = ground.folder / f"{self.name}.db"
        self.url = f"{ground.url}?namespace={self.name}"
        if ground.store == "sqlite":
            self.url = f"sqlite:///{self.file}"
        self.place = Place(self.url)
        self.history = History(self.notes, "harness")
        self.effects = Effects()
        self.kills = 0
        self._numbers = itertools.count()
        self._last = time.monotonic()

    @property
    def transactional(self) -> bool:
        """Whether a handler's own writes commit with its turn."""
        return self.ground.store in {"sqlite", "postgres"}

    def fault(self, process: str, what: str) -> None:
        """Note it, now."""
        self.history.note("fault", process=process, outcome=what)
        self._last = time.monotonic()

    async def set_up(self) -> None:
        """The mailboxes, and the table of effects."""
        async with connect(self.url) as bus:
            for box in BOXES:
                await bus.register(box)
            if self.transactional:
                await self._in_transaction(bus, self.effects.create)

    async def _in_transaction(self, bus: MessageBus, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """What can be done with the store's own connection."""
        look = await bus.register("look")
        await look.send("look", "look")
        delivery = await look.claim(STARTING)
        assert delivery is not None
        async with delivery.transaction() as connection:
            return await work(connection)

    @asynccontextmanager
    async def client(self, work: Work) -> AsyncIterator[Process]:
        """A client at work; killed with the block, if it has not ended by itself."""
        name = f"{work.__name__}-{next(self._numbers)}"
        more = [self.effects.name] if work is clients.affect else []
        seed = self.rng.randrange(10**9)
        async with run(self.place, work, str(self.notes), name, seed, *more) as process:
            try:
                await process.line(STARTING)
                yield process
            finally:
                self.fault(name, "kill")
                process.kill()
                await process.wait()

    async def kill_often(self, works: Sequence[Work], kills: int) -> None:
        """Each kind of client, killed and started again, until there were so many kills."""

        async def killed(work: Work) -> None:
            while self.kills < kills:
                self.kills += 1
                async with self.client(work):
                    await asyncio.sleep(self.rng.random() * LIFE)

        async with asyncio.TaskGroup() as tasks:
            for work in works:
                tasks.create_task(killed(work))

    async def keep_alive(self, work: Work) -> None:
        """A client of this kind, and another one when it has ended itself, until cancelled."""
        while True:
            async with self.client(work) as process:
                await process.wait(LONG)

    async def judged(self) -> Outcome:
        """Work off what is left, and judge all that was seen."""
        async with connect(self.url, retry=STUBBORN) as bus:
            await self._drain(bus)
            if self.transactional:
                for effect in await self._in_transaction(bus, self.effects.all):
                    self.history.note("effect", id=effect)
            await note_the_end(bus, self.history, self._last)
        self.history.close()
        events = [event for event in read(self.notes) if event.mailbox != "look"]
        outcome = self._outcome(events)
        shutil.rmtree(self.notes)
        return outcome

    async def _drain(self, bus: MessageBus) -> None:
        """Healthy consumers, until nothing is open."""

        async def work(delivery: Delivery[Any]) -> None:
            if delivery.message.recipient == EFFECT and self.transactional:
                async with delivery.transaction() as connection:
                    await self.effects.add(connection, delivery.message.id)

        workers = [
            asyncio.create_task(
                mailbox.serve(
                    Witness(mailbox, self.history).handler(work, lease=LEASE), concurrency=8
                )
            )
            for mailbox in [await bus.register(box) for box in (MAIL, NEXT, EFFECT, GRAVE)]
        ]
        end = time.monotonic() + DRAINING
        while (left := await _open(bus)) and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        assert not left, f"{left} messages are still open"

    def _outcome(self, events: list[Event]) -> Outcome:
        rules = Rules()
        outcome = Outcome(self.kills)
        verdict = judge(events, rules)
        outcome.violations += verdict.violations
        if self.transactional:
            of_effect = [each for each in events if each.mailbox == EFFECT or each.kind == "effect"]
            found = judge([*of_effect, *_kept(events, "drained")], Rules(transactions=True))
            outcome.violations += [each for each in found.violations if each.startswith("I4 eff")]
        outcome.counts.update(verdict.counts)
        outcome.counts.update(hit(events))
        outcome.seconds["recovery"] = recovery = _recovered(Parts(events))
        outcome.violations += [
            f"it took {each:.1f} s until somebody had what a dead one had held"
            for each in recovery
            if each > RECOVERY + BUSY
        ]
        if self.ground.store == "sqlite":
            outcome.violations += broken(self.file)
        return outcome


def broken(file: Path) -> list[str]:
    """What SQLite itself finds wrong with a file."""
    with closing(open_file(file)) as db:
        [found] = db.execute("PRAGMA integrity_check(1)").fetchone()
    return [] if found == "ok" else [f"integrity_check: {found}"]


def _kept(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event.kind == kind]


async def _open(bus: MessageBus) -> int:
    stats = await bus.stats()
    return sum(each.pending["all"] + each.leased + each.scheduled for each in stats.values())


def _recovered(history: Parts) -> list[float]:
    """Seconds from the end of who held a message, or of the server's last trouble, to the next one
    who had it."""
    deaths: dict[str, float] = {}
    for fault in history.faults:
        if fault.process != SERVER:  # the first: who ended itself is noted again with its block
            deaths.setdefault(fault.process, fault.at)
    troubles = sorted(fault.at for fault in history.faults if fault.process == SERVER)
    return [
        after.at - max([deaths[before.process], *troubles[: bisect(troubles, after.at)][-1:]])
        for turns in history.turns.values()
        for before, after in itertools.pairwise(turns)
        if before.process in deaths and before.at <= deaths[before.process] <= after.at
    ]
