"""Each coroutine, cancelled after every number of turns of the event loop."""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from contextvars import copy_context
from random import Random
from typing import Any

from afk.messaging import LeaseLostError, connect
from afk.messaging.testing.history import History, read
from afk.messaging.testing.steps import until
from afk.messaging.testing.verdict import judge
from afk.messaging.testing.witness import note_the_end

from ...quiet import quiet
from ...trial import Ground, Outcome, Run
from .public import coroutines
from .scenes import SCENES, Scene
from .stage import AGENTS, LEASE, Call, Stage
from .storm import AT_ONCE, OFTEN, answer, drained

PATIENCE = 30.0
"""Seconds in which everything ends; less than a lease."""
MOST = 1000
"""Turns: whoever has not ended by then never will."""
SURE = 2
"""So often it ended before it was cancelled; how many turns it takes differs from call to call."""
Turns = Callable[[Random], Iterator[int]]
FEW = 20
"""Coroutines that a test run tries."""


def every(rng: Random) -> Iterator[int]:
    """None, one, two, and so on."""
    return iter(range(MOST))


def some(rng: Random) -> Iterator[int]:
    """The first ones; then ever fewer."""
    turns = 0
    while turns < MOST:
        yield turns
        turns += 1 + rng.randrange(1 + turns)


def cancelling(turns: Turns, most: int | None = None) -> Run:
    """A round is all coroutines, or so many of them, each cancelled after each of these turns."""

    async def trial(ground: Ground, rounds: int, seed: int) -> Outcome:
        outcome, rng = Outcome(rounds), Random(seed)
        forgotten = sorted(coroutines() ^ SCENES.keys())
        outcome.violations += [f"{name}: no scene, or no coroutine" for name in forgotten]
        for _ in range(rounds):
            for name in rng.sample(sorted(SCENES), min(most or len(SCENES), len(SCENES))):
                with quiet():  # what is said of a cancelled call
                    found = await _cancelled(ground, SCENES[name], turns(rng), outcome)
                outcome.violations += [f"{name}: {sentence}" for sentence in found]
        return outcome

    return trial


at_every_turn = cancelling(every)
at_some_turns = cancelling(some, FEW)


async def _cancelled(
    ground: Ground, scene: Scene, turns: Iterator[int], outcome: Outcome
) -> list[str]:
    """What is wrong with this coroutine."""
    name = uuid.uuid4().hex
    notes = ground.folder / f"notes-{name}"
    notes.mkdir()
    urls = {"sqlite": f"sqlite:///{ground.folder}/{name}.db", "memory": f"memory://{name}"}
    url = urls.get(ground.store, f"{ground.url}?namespace={name}")
    history, before = History(notes, "stage"), asyncio.all_tasks()
    async with connect(url, retry=OFTEN, lease=LEASE) as bus:
        for agent in AGENTS:
            await bus.register(agent)
        stage = Stage(url, bus, history)
        oracle = asyncio.create_task(bus.mailbox("oracle").serve(answer, concurrency=AT_ONCE))
        found = await _walk(stage, scene, turns, outcome)
        oracle.cancel()
        await asyncio.gather(oracle, return_exceptions=True)
        try:
            await drained(bus, history, PATIENCE)
        except AssertionError as error:
            found.append(str(error))
        await note_the_end(bus, history, time.monotonic())
    history.close()
    await until(lambda: asyncio.all_tasks() == before, "no task is left")
    events = [each for each in read(notes) if "oracle" not in (each.mailbox, each.sender)]
    shutil.rmtree(notes)
    return found + judge(events).violations


async def _walk(stage: Stage, scene: Scene, turns: Iterator[int], outcome: Outcome) -> list[str]:
    """Cancel the call after each of these, until it has ended twice before it was."""
    counts, ended = outcome.counts, 0
    for turn in turns:
        context = copy_context()  # of all of them: a block is left in the one it was entered in

        def run(work: Coroutine[Any, Any, Any], context: Any = context) -> asyncio.Task[Any]:
            return asyncio.create_task(work, context=context)

        call: Call | None = await run(_made(stage, scene))
        if call is None:
            return []
        task = run(call())
        await _pass(turn, task)
        ended = ended + 1 if task.done() else 0
        task.cancel()
        await asyncio.wait({task}, timeout=PATIENCE)
        counts["calls"] += 1
        try:
            if not task.done():
                raise AssertionError("a cancelled call does not end")
            if task.cancelled():
                counts["cancelled"] += 1
                with suppress(LeaseLostError):
                    await asyncio.wait_for(run(call()), PATIENCE)
            else:
                task.result()
            await stage.tidy()
        except Exception as error:  # noqa: BLE001 - whatever it is, it should not be
            return [f"cancelled after {turn} turns: {error!r}"]
        if ended == SURE:
            counts["coroutines"] += 1
            return []
    return [f"has not ended after {turn} turns"]


async def _pass(turns: int, task: asyncio.Task[Any]) -> None:
    """Let so many turns pass in which something happens, or nothing for the first time."""
    ready: Any = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    busy = True
    while turns > 0 and not task.done():
        await asyncio.sleep(0)
        before, busy = busy, bool(ready)
        turns -= before or busy


async def _made(stage: Stage, scene: Scene) -> Call | None:
    return await scene(stage)
