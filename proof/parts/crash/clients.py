"""The processes that are killed. Each notes what it sees; some die by their own hand."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from afk.messaging import (
    Delivery,
    LeaseLostError,
    MessageBus,
    RetryPolicy,
    StoreError,
)
from afk.messaging.testing.history import History
from afk.messaging.testing.processes import say
from afk.messaging.testing.steps import Effects
from afk.messaging.testing.witness import Witness

T = TypeVar("T")
MAIL, NEXT, EFFECT, GRAVE = BOXES = ("mail", "next", "effect", "grave")
LEASE = 0.5
STUBBORN = RetryPolicy(max_attempts=1_000_000, base=0.0)
ONCE = RetryPolicy(max_attempts=1)
SUICIDES = 0.02
"""How often a handler ends its process."""


async def _witness(bus: MessageBus, notes: str, name: str, box: str) -> Witness:
    """At work, under this name."""
    logging.disable()  # what the store says of a dead server is no news
    mailbox = await _stubbornly(lambda: bus.register(box))
    say("begun")
    return Witness(mailbox, History(Path(notes), name))


def _die(witness: Witness, where: str) -> None:
    """End this process as kill -9 would, at an exact point."""
    witness.history.note("fault", process=witness.history.name, outcome=f"dies {where}")
    os._exit(9)


async def _stubbornly(call: Callable[[], Awaitable[T]]) -> T:
    """The same call until its outcome is known: what was in doubt goes out under its key again."""
    while True:
        with suppress(StoreError):
            return await call()


async def send(bus: MessageBus, notes: str, name: str, seed: int) -> None:
    """S1 to S3: message after message, eight at a time, each under a key of its own."""
    rng = random.Random(seed)
    witness = await _witness(bus, notes, name, MAIL)

    async def some(number: int) -> None:
        for count in range(1_000_000):
            key = f"{name}-{number}-{count}"
            box = rng.choice((MAIL, MAIL, EFFECT, GRAVE))
            content = {"key": key, "text": "." * rng.choice((0, 40, 400))}

            async def once(key: str = key, box: str = box, content: Any = content) -> None:
                await witness.send(box, content, key=key)

            await _stubbornly(once)
            await asyncio.sleep(rng.random() * 0.05)

    await asyncio.gather(*(some(number) for number in range(8)))


async def claim(bus: MessageBus, notes: str, name: str, seed: int) -> None:
    """C1, C4, C5: claims one by one, and settles them this way or that."""
    rng = random.Random(seed)
    witness = await _witness(bus, notes, name, MAIL)
    while True:
        with suppress(StoreError, LeaseLostError):
            delivery = await witness.claim(1.0, lease=LEASE)
            if delivery is None:
                continue
            if rng.random() < SUICIDES:
                _die(witness, "with a claimed message")
            outcome = rng.choices(("done", "again", "back"), (8, 1, 1))[0]
            if outcome == "done":
                await witness.onward(delivery, NEXT, delivery.message.content)
            await witness.settle(delivery, outcome, *(("no",) if outcome == "again" else ()))
            if rng.random() < SUICIDES:
                _die(witness, "right after it settled")


async def serve(bus: MessageBus, notes: str, name: str, seed: int) -> None:
    """C2: in a handler, which sends on with its ack."""
    rng = random.Random(seed)
    witness = await _witness(bus, notes, name, MAIL)

    async def work(delivery: Delivery[Any]) -> None:
        await witness.onward(delivery, NEXT, delivery.message.content)
        await asyncio.sleep(rng.random() * 0.02)
        if rng.random() < SUICIDES:
            _die(witness, "in a handler")
        if rng.random() < 0.05:
            raise RuntimeError("fails now and then")

    handler = witness.handler(work, lease=LEASE)
    await witness.mailbox.serve(handler, concurrency=4, lease=LEASE, retry=STUBBORN)


async def affect(bus: MessageBus, notes: str, name: str, seed: int, table: str) -> None:
    """C3: writes an effect in the store's own transaction, which acks."""
    rng = random.Random(seed)
    witness = await _witness(bus, notes, name, EFFECT)

    async def work(delivery: Delivery[Any]) -> None:
        async with delivery.transaction() as connection:
            await Effects(table).add(connection, delivery.message.id)
            await witness.onward(delivery, NEXT, delivery.message.content)
            if rng.random() < SUICIDES:
                _die(witness, "inside its transaction")
        if rng.random() < SUICIDES:
            _die(witness, "right after its transaction")

    handler = witness.handler(work, lease=LEASE)
    await witness.mailbox.serve(handler, concurrency=2, lease=LEASE, retry=STUBBORN)


async def bury(bus: MessageBus, notes: str, name: str, seed: int) -> None:
    """D1, D2: fails, so that messages become dead letters; dies when it is told of one."""
    rng = random.Random(seed)
    witness = await _witness(bus, notes, name, GRAVE)

    def told(letter: object) -> None:
        if rng.random() < SUICIDES:
            _die(witness, "when told of a dead letter")

    bus.on_dead_letter(told)

    async def work(delivery: Delivery[Any]) -> None:
        raise RuntimeError("can never succeed")

    handler = witness.handler(work, lease=LEASE)
    await witness.mailbox.serve(handler, concurrency=4, lease=LEASE, retry=ONCE)


async def redrive(bus: MessageBus, notes: str, name: str, seed: int) -> None:
    """R1: redrives whatever is dead."""
    rng = random.Random(seed)
    witness = await _witness(bus, notes, name, GRAVE)
    while True:
        with suppress(StoreError):
            for letter in await bus.dead_letters(GRAVE, limit=20):
                # Before: killed in between, it may have been. It comes again only if it was.
                witness.history.note("redrive", id=letter.id)
                await bus.redrive(letter.id)
        await asyncio.sleep(rng.random() * 0.1)
