"""Eight processes race for the same keys on one file, while another is frozen and killed."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any

from afk.messaging import MessageBus, connect
from afk.messaging.testing.history import Event, History, read
from afk.messaging.testing.processes import Process, run
from afk.messaging.testing.verdict import judge
from afk.messaging.testing.witness import Witness, note_the_end

from ...place import Place
from ...trial import Ground, Outcome
from .trouble import Kill, trouble
from .workers import LEASE, MIXED, RACE, RACERS, compete, disputed

PROCESSES = 8
BLOCK = 10
"""Keys that all begin on together."""
PATIENCE = 120.0
"""Seconds: far beyond any wait here, so that every StoreError is a violation."""
FAIR = 0.9
"""Jain's index of the sends that were accepted of each process."""


async def race(ground: Ground, rounds: int, seed: int) -> Outcome:
    """A round is a key, for which all of them race."""
    folder = ground.folder / f"contention-{seed}"
    notes = folder / "notes"
    notes.mkdir(parents=True)
    file = folder / "mail.db"
    place = Place(f"sqlite:///{file}?patience={PATIENCE}")
    outcome = Outcome(rounds)
    async with connect(place.url) as bus, AsyncExitStack() as stack:
        await bus.register(RACE)
        processes = [
            await stack.enter_async_context(run(place, compete, str(notes), number))
            for number in range(PROCESSES)
        ]
        await asyncio.gather(*(each.line() for each in processes))
        async with trouble(place, file, notes, Random(seed)) as kills:
            for start in range(0, rounds, BLOCK):
                block = start, min(start + BLOCK, rounds)
                outcome.violations += await _block(bus, processes, *block)
        waits = await _ended(processes)
        _sort_out(waits, kills, outcome)
        await _work_off(bus, notes)
    _judge(read(notes), outcome)
    shutil.rmtree(folder)
    return outcome


async def _block(bus: MessageBus, processes: list[Process], start: int, stop: int) -> list[str]:
    """All race for some keys; then these are there, each once."""
    for each in processes:
        await each.tell([start, stop])
    answers = await asyncio.gather(*(each.line(PATIENCE) for each in processes))
    sentences = list(_winners(each for answer in answers for each in answer))
    waiting = (await bus.stats())[RACE].pending["all"]
    if waiting != stop:
        sentences.append(f"{waiting} messages wait where {stop} keys were sent")
    return sentences


def _winners(results: Iterable[tuple[int, int, str, str]]) -> Iterator[str]:
    """Of each key: one new, under one id; who sent the other content has a conflict."""
    of: dict[int, list[tuple[int, str, str]]] = defaultdict(list)
    for key, side, what, value in results:
        of[key].append((side, what, value))
    for key, sends in of.items():
        count = Counter(what for _, what, _ in sends)
        everyone = PROCESSES * RACERS
        accepted = everyone // 2 if disputed(key) else everyone
        wanted = Counter(new=1, again=accepted - 1, conflict=everyone - accepted)
        if count != wanted:
            error = next((value for _, what, value in sends if what == "failed"), "")
            yield f"key {key}: {dict(count)} instead of {dict(wanted)} {error}"
        ids = {value for _, what, value in sends if what in {"new", "again"}}
        if len(ids) != 1:
            yield f"key {key} has {len(ids)} ids"
        if disputed(key) and len({side for side, what, _ in sends if what != "conflict"}) != 1:
            yield f"key {key} was accepted with two contents"


# -- the end -----------------------------------------------------------------------------


async def _ended(processes: list[Process]) -> list[tuple[float, float]]:
    """Each ends in order, and says how long it waited for the lock."""
    waits: list[Any] = []
    for each in processes:
        await each.tell(None)
    for each in processes:
        waits += await each.line(PATIENCE)
        if await each.wait() != 0:
            raise AssertionError("a process did not end in order")
    return waits


def _sort_out(waits: list[tuple[float, float]], kills: list[Kill], outcome: Outcome) -> None:
    outcome.counts.update(kills=len(kills), frozen_with_lock=sum(kill.locked for kill in kills))
    outcome.violations += [f"integrity_check: {kill.found}" for kill in kills if kill.found != "ok"]
    for at, wait in waits:
        hindered = any(at - wait < kill.end and kill.began < at for kill in kills)
        kind = "lock wait, one frozen" if hindered else "lock wait"
        outcome.seconds.setdefault(kind, []).append(wait)


async def _work_off(bus: MessageBus, notes: Path) -> None:
    """Claim and settle what is left, once the leases of the killed have ended."""
    history = History(notes, "heir")
    heir = Witness(await bus.register(MIXED), history)
    async with asyncio.timeout(PATIENCE):
        while True:
            delivery = await heir.claim(0.1, lease=LEASE)
            if delivery is not None:
                await heir.settle(delivery, "done")
                continue
            stats = (await bus.stats())[MIXED]
            if not stats.pending["all"] + stats.leased + stats.scheduled:
                break
    await note_the_end(bus, history, 0.0)
    history.close()


def _judge(events: list[Event], outcome: Outcome) -> None:
    """The history of what they did beside the race."""
    mine = [event for event in events if event.kind != "final" or event.mailbox == MIXED]
    verdict = judge(mine)
    outcome.violations += verdict.violations[:20]
    outcome.violations += [
        f"a {event.kind} of {event.process} failed: {event.error}"
        for event in events
        if event.phase in {"fail", "unknown"} and event.error != "lost"
    ][:20]
    sends = Counter(
        event.process
        for event in mine
        if event.kind == "send" and event.phase == "ok" and event.process.startswith("process")
    )
    counts = [sends[f"process-{number}"] for number in range(PROCESSES)]
    squares = sum(count * count for count in counts)
    jain = sum(counts) ** 2 / (PROCESSES * squares) if squares else 0.0
    if jain < FAIR:
        outcome.violations.append(f"sends of the processes: {counts}, Jain's index {jain:.2f}")
    outcome.counts.update(
        mixed=verdict.counts["sends"],
        fewest_of_a_process=min(counts),
        most_of_a_process=max(counts),
    )
