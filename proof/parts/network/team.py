"""Two processes with a bad network between one of them and the server, and what is said of them."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from afk.messaging import MessageBus, StoreError, connect
from afk.messaging.testing.history import Event, History, digest, read
from afk.messaging.testing.processes import Process, run
from afk.messaging.testing.steps import until
from afk.messaging.testing.verdict import Rules, judge
from afk.messaging.testing.witness import note_the_end
from proof.trial import Outcome

from . import member, terms

NEAR, FAR = "near", "far"
STARTING = 120.0
"""Seconds in which a process is there, on a busy machine."""
DRAINING = 60.0
"""Seconds in which what waits is worked off, by all teams at once."""
EVERY = 0.05
"""Seconds between notes that a fault lasts."""

Act = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """strike and heal, `lasts` s later; whom: the process it touches, or all."""

    what: str
    lasts: float
    strike: Act
    heal: Act
    whom: str = FAR


@dataclass(frozen=True)
class Place:
    """Where a team works: the server as either of them reaches it, and the host of `far`.

    stuck: seconds after which somebody who is not at work again is stuck.
    """

    near: str
    far: str
    stuck: float
    folder: Path
    namespace: str
    host: str = ""

    def url(self, address: str) -> str:
        """With what both have in common."""
        return f"{address}?namespace={self.namespace}&{terms.OPTIONS}"

    def bus(self) -> MessageBus:
        """For the harness, which is patient."""
        return connect(self.near, namespace=self.namespace, patience=60)


class Team:
    """Made by `at_work`."""

    def __init__(self, place: Place, processes: dict[str, Process], history: History) -> None:
        self._place = place
        self._processes = processes
        self._history = history
        self.outcome = Outcome()
        self._healed = time.monotonic()

    async def endure(self, fault: Fault) -> None:
        """A round: the fault, its end, and everyone at work again."""
        async with self.noting(fault):
            await fault.strike()
            try:
                await asyncio.sleep(fault.lasts)
            finally:
                await fault.heal()
        await self.recover(fault)

    @asynccontextmanager
    async def noting(self, fault: Fault) -> AsyncIterator[None]:
        """Note a fault as long as it lasts."""

        async def note() -> None:
            while True:
                self._note(fault)
                await asyncio.sleep(EVERY)

        noting = asyncio.create_task(note())
        try:
            yield
        finally:
            self._note(fault)
            self._healed = time.monotonic()
            noting.cancel()

    def _note(self, fault: Fault) -> None:
        self._history.note("fault", process=fault.whom, outcome=fault.what)

    async def recover(self, fault: Fault) -> None:
        """Wait until everyone is at work again; who is not for too long is stuck."""
        self.outcome.rounds += 1
        for process in self._processes.values():
            await process.tell(["watch", self.outcome.rounds, self._healed])
        await asyncio.gather(*(self._recovered(name, fault) for name in self._processes))

    async def _recovered(self, name: str, fault: Fault) -> None:
        seen: list[str] = []
        left = 1
        while left:
            rest = self._healed + self._place.stuck - time.monotonic()
            try:
                _, turn, what, seconds, still = await self._processes[name].line(max(rest, 0.01))
            except AssertionError as error:
                what = f"{fault.what} of {fault.lasts:.1f} s"
                self._bad(f"{name} is stuck after {what}: {error}; what works: {seen}")
                return
            if turn == self.outcome.rounds:  # else it was stuck in an earlier one
                left = still
                seen.append(what)
                self.outcome.seconds.setdefault("recovery", []).append(seconds)

    async def finish(self) -> None:
        """Have them stop, and judge."""
        began = time.monotonic()
        with self._said():
            await asyncio.gather(*(self._quiet(each) for each in self._processes.values()))
        async with self._place.bus() as bus:
            with self._said():
                await until(partial(drained, bus), "everything is worked off", DRAINING)
                self.outcome.seconds.setdefault("drain", []).append(time.monotonic() - began)
            with self._said():
                await asyncio.gather(*(self._left(each) for each in self._processes.values()))
            await note_the_end(bus, self._history, self._healed)
        events = read(self._place.folder)
        verdict = judge(events, Rules(max_attempts=terms.RETRY.max_attempts))
        for sentence in (*verdict.violations, *once(events)):
            self._bad(sentence)
        self.outcome.counts.update({name: verdict.counts[name] for name in ("accepted", "repeats")})

    @contextmanager
    def _said(self) -> Iterator[None]:
        """What fails in the block is a violation."""
        try:
            yield
        except (AssertionError, ConnectionError) as error:
            self._bad(f"{error}")

    async def _quiet(self, process: Process) -> None:
        await process.tell(["stop"])
        while (await process.line(self._place.stuck + terms.ASKING))[0] != "quiet":
            pass

    async def _left(self, process: Process) -> None:
        await process.tell(["leave"])
        said = await process.line()
        while said[0] != "left":
            said = await process.line()
        _, bad, counts, overruns = said
        if overruns:
            self.outcome.seconds.setdefault("overrun", []).extend(overruns)
        for sentence in bad:
            self._bad(sentence)
        self.outcome.counts.update(counts)

    def _bad(self, sentence: str) -> None:
        self.outcome.violations.append(f"{self._place.namespace}: {sentence}")


@asynccontextmanager
async def at_work(place: Place, seed: int, careless: bool = False) -> AsyncIterator[Team]:
    """A team at work. When the block is left it is stopped, drained and judged.

    careless: it sends again under new keys, which must be found out.
    """
    place.folder.mkdir(parents=True)
    chance = random.Random(seed)
    async with place.bus():
        pass  # what has to be made there for a namespace takes longer than their patience
    async with AsyncExitStack() as stack:
        processes = {}
        for me, other, address in ((NEAR, FAR, place.near), (FAR, NEAR, place.far)):
            where = {
                "me": me,
                "other": other,
                "url": place.url(address),
                "folder": str(place.folder),
                "seed": chance.randrange(10**9),
                "host": place.host if me == FAR else "",
                "careless": careless,
            }
            nowhere: Any = SimpleNamespace(url="memory://")
            processes[me] = await stack.enter_async_context(run(nowhere, member.work, where))
        for process in processes.values():
            assert await process.line(STARTING) == ["ready"]
        for process in processes.values():
            await process.tell()
        history = History(place.folder, "harness")
        stack.callback(history.close)
        team = Team(place, processes, history)
        yield team
        await team.finish()


async def drained(bus: MessageBus) -> bool:
    """Whether nothing waits, and nobody has anything."""
    with suppress(StoreError):
        stats = (await bus.stats()).values()
        return not any(each.pending["all"] or each.leased or each.scheduled for each in stats)
    return False


def once(events: list[Event]) -> list[str]:
    """All that a team sends is different: each is there once, and done. What a handler sent left
    with its answer: once for each question."""
    finals = [event for event in events if event.kind == "final"]
    there = Counter((event.mailbox, event.digest) for event in finals)
    found = [f"{place} is there {number} times" for place, number in there.items() if number > 1]
    found += [f"{e.id} is {e.outcome} ({e.error})" for e in finals if not _ended_well(e)]
    for event in events:
        if event.kind == "send" and event.phase == "ok" and event.mailbox.endswith("-ask"):
            report = digest(terms.report_of({"question": event.key}))
            if (terms.BOTH, report) not in there:
                found.append(f"{event.key} was answered without its report")
    return found


def _ended_well(final: Event) -> bool:
    """Done; or a question that nobody took while who asked was waiting."""
    return final.outcome == "done" or (final.error == "expired" and final.mailbox.endswith("-ask"))
