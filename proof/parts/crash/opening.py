"""M1: whoever opens a place that nobody has opened yet is killed at it, or the server is."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import AsyncExitStack, suppress
from random import Random

from afk.messaging import MessageBus, StoreError, connect
from afk.messaging.testing.processes import Process, run, say

from ...place import Place
from ...quiet import quiet
from ...trial import Ground, Outcome
from .batch import STARTING, broken

OPENERS = 4
SOON = 0.2
"""Seconds within which one is killed."""


async def open_it(bus: MessageBus) -> None:
    """Be there."""
    await bus.register("bob")
    say("open")
    await asyncio.Event().wait()


async def opening_killed(ground: Ground, rounds: int, seed: int) -> Outcome:
    """Several open a place, and are killed at it; another opens it. A round is a kill."""
    rng, outcome = Random(seed), Outcome()
    while outcome.rounds < rounds:
        name, url = _place(ground)
        kills = min(OPENERS, rounds - outcome.rounds)
        processes: list[Process] = []
        async with AsyncExitStack() as openers:
            for _ in range(kills):
                process = await openers.enter_async_context(run(Place(url), open_it))
                await asyncio.sleep(rng.random() * 0.02)
                asyncio.get_running_loop().call_later(rng.random() * SOON, process.kill)
                processes.append(process)
            for process in processes:
                await process.wait(STARTING)
                outcome.counts["at M1"] += not await _opened(process)
        outcome.rounds += kills
        await _check(ground, name, url, outcome)
    return outcome


async def _opened(process: Process) -> bool:
    """Whether it was there before it was killed."""
    try:
        return bool(await process.line(STARTING))
    except AssertionError:  # it ended, and had not said so
        return False


async def server_killed_at_opening(ground: Ground, rounds: int, seed: int) -> Outcome:
    """Several open a place when the server is killed; once it is back, they have opened it."""
    server = ground.server
    assert server is not None
    rng, outcome = Random(seed), Outcome()
    for _ in range(rounds):
        name, url = _place(ground)
        opening = [asyncio.create_task(_stubbornly(url)) for _ in range(OPENERS)]
        await asyncio.sleep(rng.random() * SOON)
        outcome.counts["at M1"] += any(not each.done() for each in opening)
        with quiet():  # what the store says of a dead server
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            await asyncio.gather(*opening)
        outcome.rounds += 1
        await _check(ground, name, url, outcome)
    return outcome


async def _stubbornly(url: str) -> None:
    while True:
        with suppress(StoreError):
            async with connect(url) as bus:
                await bus.register("bob")
                return


def _place(ground: Ground) -> tuple[str, str]:
    """A name, and the URL of a place of this name, with a schema of its own."""
    name = uuid.uuid4().hex
    url = f"{ground.url}?namespace={name}"
    if ground.store == "sqlite":
        url = f"sqlite:///{ground.folder}/{name}.db"
    if ground.store == "postgres":
        url += f"&schema=afk_{name}"
    return name, url


async def _check(ground: Ground, name: str, url: str, outcome: Outcome) -> None:
    """It works as if nothing had happened."""
    async with connect(url) as bus:
        bob = await bus.register("bob")
        receipt = await bob.send("bob", name)
        message = await bob.receive(STARTING)
        if message is None or message.id != receipt.id or await bus.agents() != ["bob"]:
            outcome.violations.append(f"{url} does not work after its opening was killed")
    if ground.store == "sqlite":
        outcome.violations += broken(ground.folder / f"{name}.db")
