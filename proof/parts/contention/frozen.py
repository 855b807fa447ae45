"""A process is frozen while it has the file for itself: the others wait, but not for ever."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random

from afk.messaging import MessageBus, StoreError, connect
from afk.messaging.testing.processes import run

from ...place import Place
from ...trial import Ground, Outcome
from .workers import MIXED, hold

PATIENCE = 1.0
SLACK = 1.0
CALLS = 8


async def frozen_holder(ground: Ground, rounds: int, seed: int) -> Outcome:
    """Others' calls raise StoreError once their patience is over, and store nothing; with the
    holder's death the file is free."""
    outcome = Outcome(rounds)
    place = Place(f"sqlite:///{ground.folder}/frozen-{seed}.db?patience={PATIENCE}")
    rng = Random(seed)
    async with connect(place.url) as bus:
        await bus.register(MIXED)
        for number in range(rounds):
            outcome.violations += await _round(bus, place, rng, number, outcome)
    return outcome


async def _round(
    bus: MessageBus, place: Place, rng: Random, number: int, outcome: Outcome
) -> list[str]:
    mailbox = await bus.register(MIXED)
    keys = [f"{number}-{each}" for each in range(rng.randint(1, CALLS))]
    sends = [partial(mailbox.send, MIXED, key, idempotency_key=key) for key in keys]
    sentences = []
    async with run(place, hold) as holder:
        await holder.line()
        holder.signal(signal.SIGSTOP)
        refused = await asyncio.gather(_refused(partial(mailbox.claim, 0)), *map(_refused, sends))
        holder.kill()
        killed = time.monotonic()
        receipts = [await send() for send in sends]
    outcome.seconds.setdefault("free after", []).append(time.monotonic() - killed)
    outcome.seconds.setdefault("refused after", []).extend(wait for wait, _ in refused)
    for wait, error in refused:
        if not error or wait > PATIENCE + SLACK:
            sentences.append(f"a call took {wait:.2f} s, {error or 'and worked'}")
    for wait, error in refused[1:]:
        if wait < PATIENCE or "nothing was stored" not in error:
            sentences.append(f"after {wait:.2f} s a send was refused with {error}")
    if any(receipt.duplicate for receipt in receipts):
        sentences.append("a send that was refused was stored")
    waiting = [message.content for message in await mailbox.peek()]
    if waiting != keys:
        sentences.append(f"{waiting} wait instead of {keys}")
    for _ in waiting:
        await mailbox.receive(0)
    return [f"round {number}: {each}" for each in sentences]


async def _refused(call: Callable[[], Awaitable[object]]) -> tuple[float, str]:
    """How long the call took, and what it raised."""
    began = time.monotonic()
    try:
        await call()
    except StoreError as error:
        return time.monotonic() - began, str(error)
    return time.monotonic() - began, ""
