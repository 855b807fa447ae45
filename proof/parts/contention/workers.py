"""The processes that share one file."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from afk.messaging import (
    AgentMailbox,
    IdempotencyConflictError,
    LeaseLostError,
    MessageBus,
    MessagingError,
)
from afk.messaging.stores.sqlite.lock import LockFile
from afk.messaging.testing.history import History
from afk.messaging.testing.processes import hear, say
from afk.messaging.testing.witness import Witness

RACE, MIXED, SENDER = "race", "mixed", "racer"
RACERS = 8
"""Tasks of each process that send the same keys."""
USERS = 2
"""Tasks of each process that send, claim and settle meanwhile."""
LEASE = 2.0
DISPUTED = 5
"""Every so many keys are sent with two contents."""
SAMPLE = 2000


async def compete(bus: MessageBus, notes: str, number: int) -> None:
    """Race for the keys that it is told, block by block, and use the file meanwhile."""
    waits = _timed()
    history = History(Path(notes), f"process-{number}")
    await bus.register(RACE)
    racer = await bus.register(SENDER)
    user = Witness(await bus.register(MIXED), history)
    say("ready")
    over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for each in range(USERS):
            tasks.create_task(_use(user, random.Random(f"{number}-{each}"), over.is_set))
        while (block := await asyncio.to_thread(hear)) is not None:
            sent = [_race(racer, side % 2, *block) for side in range(RACERS)]
            say([each for one in await asyncio.gather(*sent) for each in one])
        over.set()
    say(random.Random(number).sample(waits, min(len(waits), SAMPLE)))


async def disturb(bus: MessageBus, notes: str, number: int) -> None:
    """Use the file until it is frozen and killed."""
    history = History(Path(notes), f"victim-{number}")
    user = Witness(await bus.register(MIXED), history)
    say("ready")
    async with asyncio.TaskGroup() as tasks:
        for each in range(USERS * 2):
            chance = random.Random(f"victim-{number}-{each}")
            tasks.create_task(_use(user, chance, lambda: False))


async def _race(racer: AgentMailbox, side: int, start: int, stop: int) -> list[list[Any]]:
    """Send the keys of a block: of each its number, the side, what came of it."""
    results = []
    for number in range(start, stop):
        content = {"key": number, "side": side if disputed(number) else 0}
        try:
            receipt = await racer.send(RACE, content, idempotency_key=str(number))
        except IdempotencyConflictError:
            results.append([number, side, "conflict", ""])
        except MessagingError as error:
            results.append([number, side, "failed", repr(error)])
        else:
            results.append([number, side, "again" if receipt.duplicate else "new", receipt.id])
    return results


def disputed(number: int) -> bool:
    """Whether the two sides send different contents under this key."""
    return number % DISPUTED == 0


async def _use(user: Witness, chance: random.Random, over: Callable[[], bool]) -> None:
    """Send, claim, settle; what fails is in the history."""
    count = 0
    while not over():
        count += 1
        key = f"{user.history.name}-{chance.random()}"
        with suppress(MessagingError):
            await user.send(MIXED, {"key": key}, key=key)
            delivery = await user.claim(0, lease=LEASE)
            if delivery is not None:
                await user.settle(delivery, "back" if chance.random() < 0.1 else "done")


def _timed() -> list[tuple[float, float]]:
    """From now on: when this process got the lock, and how long it had waited."""
    waits: list[tuple[float, float]] = []
    held = LockFile.held

    @contextmanager
    def timed(lock: LockFile) -> Iterator[None]:
        began = time.monotonic()
        with held(lock):
            now = time.monotonic()
            waits.append((now, now - began))
            yield

    LockFile.held = timed  # type: ignore[method-assign, assignment]
    return waits


async def hold(bus: MessageBus) -> None:
    """Have the file for itself, in a transaction of a message's own, for ever."""
    mailbox = await bus.register(MIXED)
    await mailbox.send(MIXED, "held")
    delivery = await mailbox.claim(LEASE)
    if delivery is not None:
        with suppress(LeaseLostError):
            async with delivery.transaction():
                say("held")
                await asyncio.Event().wait()
