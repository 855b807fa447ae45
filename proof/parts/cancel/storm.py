"""Calls of every kind, cancelled at any moment, again and again."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

from afk.messaging import Delivery, LeaseLostError, MessageBus, RetryPolicy, connect
from afk.messaging.testing.history import History, digest, read
from afk.messaging.testing.steps import until
from afk.messaging.testing.verdict import judge
from afk.messaging.testing.witness import Witness, note_the_end

from ...quiet import quiet
from ...trial import Ground, Outcome

AT_ONCE = 20
"""Calls that are under way together."""
TICKS, LEAST, MOST = 40, -4.0, -0.7
"""After how many turns of the event loop at most a call is cancelled; or after how many seconds, as
powers of ten."""
LEASE = 1.0
DRAINING = 120.0
OFTEN = RetryPolicy(max_attempts=1_000_000, base=0.0, jitter="none")


class Storm:
    """A bus with an agent who is asked, one who gets mail, and calls that are cancelled."""

    def __init__(self, bus: MessageBus, history: History, rng: Random) -> None:
        self.bus = bus
        self.history = history
        self.rng = rng
        self.ada = Witness(bus.mailbox("ada"), history)
        self.bob = Witness(bus.mailbox("bob"), history)
        self.cancelled = self.wrong = 0
        self._numbers = itertools.count()
        self._calls: list[Callable[[], Awaitable[Any]]] = [
            *[self.send] * 5,
            *[self.receive] * 3,
            *[self.claim] * 3,
            *[self.turn] * 2,
            *[self.ask] * 2,
            *[partial(self.look, name) for name in ("stats", "agents", "messages", "dead_letters")],
            self.peek,
        ]

    async def round(self) -> None:
        """One call, cancelled soon; what it raises but for that is a mistake."""
        task = asyncio.ensure_future(self.rng.choice(self._calls)())
        if self.rng.random() < 0.3:
            for _ in range(self.rng.randrange(TICKS)):
                await asyncio.sleep(0)
        else:
            await asyncio.wait([task], timeout=10 ** self.rng.uniform(LEAST, MOST))
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            self.cancelled += 1
        else:
            task.result()

    async def send(self) -> None:
        """In doubt once it is cancelled."""
        key = f"k{next(self._numbers)}"
        await self.ada.send("bob", {"key": key}, key=key)

    async def receive(self) -> None:
        """What is in our hands is done, whenever that was."""
        since = self.history.now()
        message = await self.bob.mailbox.receive(timeout=0.02)
        if message is not None:
            shown = digest(message.content)
            self.history.note("claim", id=message.id, mailbox="bob", digest=shown, since=since)

    async def claim(self) -> None:
        """Claimed, and settled if that is not cancelled; else its lease ends."""
        delivery = await self.bob.claim(0.02, lease=LEASE)
        if delivery is not None:
            with suppress(LeaseLostError):
                outcome = self.rng.choice(("done", "done", "again", "back"))
                await self.bob.settle(delivery, outcome, *(("no",) if outcome == "again" else ()))

    async def turn(self) -> None:
        """A block, which settles as it ends; cancelled, it gives back. Either is out of sight."""
        delivery = await self.bob.claim(0.02, lease=LEASE)
        if delivery is None:
            return
        it = {"id": delivery.message.id, "token": delivery.token, "outcome": "back"}
        call = self.history.call()
        self.history.note("settle", "invoke", call=call, **it)
        try:
            with suppress(LeaseLostError):
                async with delivery:
                    await self.bob.onward(delivery, "end", delivery.message.content)
                    await asyncio.sleep(0)
        finally:
            self.history.note("settle", "unknown", call=call, **it)

    async def ask(self) -> None:
        """The answer must be of this question."""
        number = next(self._numbers)
        answer = await self.ada.mailbox.request("oracle", number, timeout=20.0)
        self.wrong += answer.content != [number]

    async def look(self, name: str) -> None:
        """Changes nothing."""
        await getattr(self.bus, name)()

    async def peek(self) -> None:
        """Changes nothing."""
        await self.bob.mailbox.peek(5)


async def storm(ground: Ground, rounds: int, seed: int) -> Outcome:
    """So many calls, each cancelled; then all is worked off, and judged."""
    name = uuid.uuid4().hex
    notes = ground.folder / f"notes-{name}"
    notes.mkdir()
    url = f"{ground.url}?namespace={name}"
    if ground.store == "sqlite":
        url = f"sqlite:///{ground.folder}/{name}.db"
    history, outcome, before = History(notes, "storm"), Outcome(rounds), asyncio.all_tasks()
    async with connect(url, retry=OFTEN, lease=LEASE) as bus:
        for each in ("ada", "bob", "end", "oracle"):
            await bus.register(each)
        weather = Storm(bus, history, Random(seed))
        oracle = asyncio.create_task(bus.mailbox("oracle").serve(answer, concurrency=AT_ONCE))
        left = itertools.count(rounds, -1)

        async def some() -> None:
            while next(left) > 0:
                await weather.round()

        with quiet():  # leases run out
            await asyncio.gather(*(some() for _ in range(AT_ONCE)))
            oracle.cancel()
            await asyncio.gather(oracle, return_exceptions=True)
            await drained(bus, history)
        await note_the_end(bus, history, time.monotonic())
    history.close()
    await until(lambda: asyncio.all_tasks() == before, "no task is left")
    events = [event for event in read(notes) if event.mailbox != "oracle"]
    verdict = judge([event for event in events if event.sender != "oracle"])
    outcome.violations += verdict.violations
    if weather.wrong:
        outcome.violations.append(f"{weather.wrong} answers were of another question")
    outcome.counts.update(verdict.counts, cancelled=weather.cancelled)
    shutil.rmtree(notes)
    return outcome


async def answer(delivery: Delivery[Any]) -> Any:
    """What the oracle says to a question."""
    return [delivery.message.content] if delivery.record.kind == "request" else None


async def drained(bus: MessageBus, history: History, patience: float = DRAINING) -> None:
    """Healthy consumers, until nothing is open."""

    async def work(delivery: Delivery[Any]) -> None:
        """Done as soon as it has begun."""

    workers = [
        asyncio.create_task(
            bus.mailbox(name).serve(
                Witness(bus.mailbox(name), history).handler(work, lease=LEASE), concurrency=AT_ONCE
            )
        )
        for name in ("bob", "end")
    ]
    oracle = asyncio.create_task(bus.mailbox("oracle").serve(answer))

    async def empty() -> bool:
        stats = await bus.stats()
        return not any(
            each.pending["all"] + each.leased + each.scheduled for each in stats.values()
        )

    try:
        await until(empty, "all is worked off", patience)
    finally:
        for worker in (*workers, oracle):
            worker.cancel()
        await asyncio.gather(*workers, oracle, return_exceptions=True)
