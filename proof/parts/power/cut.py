"""One cut: work, power loss, a new start, and what is there then."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from random import Random

from afk.messaging import connect
from afk.messaging.testing.history import SERVER, Event, History, read
from afk.messaging.testing.processes import Process, run
from afk.messaging.testing.steps import AT_ONCE, until
from afk.messaging.testing.verdict import Parts

from ...place import Place
from ...trial import Outcome
from . import clients
from .checks import integrity
from .disk import Disk
from .heir import Found, found, inherit
from .sites import File, Site

SENDERS = (1, 16, 128)
FIRST = 60.0
"""Seconds within which something is accepted, however busy the machine."""
MOST = 5
"""Sentences of one cut that are kept."""


async def cut_store(site: Site, drive: Disk, folder: Path, rng: Random, number: int) -> Outcome:
    """Cut a store's power while clients work; strong ones have to be whole, weak ones lose."""
    notes = folder / f"notes-{number}"
    notes.mkdir()
    url, outcome = site.url(number), Outcome(1)
    harness = History(notes, "harness")
    senders = rng.choice(SENDERS)
    async with run(Place(url), clients.traffic, str(notes), senders) as process:
        said = await process.line()
        await _moment(notes, rng, early=site.weak and number % 2 == 0)
        at = drive.cut()
        site.kill()
        await _end(process)
    harness.note("fault", process=SERVER, outcome="power off")
    assert said == site.durability, f"the bus says that its durability is {said}"
    drive.unmount()
    back = time.monotonic()
    drive.mount()
    site.start()
    known = before(read(notes), at)
    async with connect(url, retry=AT_ONCE) as bus:
        there = await found(bus)
        outcome.seconds["back"] = [time.monotonic() - back]
        harness.note("fault", process=SERVER, outcome="power on")
        sentences = _failed(known)
        if not site.weak:
            sentences += await inherit(bus, notes, known, there)
    if isinstance(site, File):
        sentences += integrity(site.file(number))
    assert not (site.weak and sentences), sentences  # all it may do is lose
    sentences = _lost(known, there, outcome) + sentences
    outcome.violations += [f"cut {number}: {each}" for each in sentences[:MOST]]
    harness.close()
    shutil.rmtree(notes)
    return outcome


async def cut_control(drive: Disk, folder: Path, rng: Random, number: int) -> Outcome:
    """Cut the power of who appends to a file and syncs."""
    notes = folder / f"notes-{number}"
    notes.mkdir()
    file = drive.place / f"lines-{number}"
    async with run(Place("memory://"), clients.append, str(notes), str(file)) as process:
        await process.line()
        await _moment(notes, rng)
        at = drive.cut()
        await _end(process)
    drive.unmount()
    drive.mount()
    lines = set(file.read_text("ascii", "replace").splitlines())
    acked = [event.id for event in before(read(notes), at)]
    lost = [each for each in acked if each not in lines]
    shutil.rmtree(notes)
    outcome = Outcome(1)
    outcome.counts.update(acked=len(acked), lost=len(lost))
    if lost:
        outcome.violations.append(f"cut {number}: {len(lost)} of {len(acked)} lines are lost")
    return outcome


async def _moment(notes: Path, rng: Random, *, early: bool = False) -> None:
    """Wait for the moment of the cut: at once, as soon as something is accepted, or a while later.

    early: while little is accepted, so that a store that syncs now and then has not yet.
    """
    if early:
        least, delay = rng.randint(1, 100), 0.0
    else:
        least = rng.choice((0, 1, 1, 1))
        delay = rng.uniform(0.0, 0.05) if rng.random() < 0.25 else rng.uniform(0.1, 0.8)
    await until(lambda: accepted(read(notes)) >= least, f"{least} are accepted", FIRST)
    await asyncio.sleep(delay)


def accepted(events: Iterable[Event]) -> int:
    """How many sends were."""
    return sum(event.kind == "send" and event.phase == "ok" for event in events)


async def _end(process: Process) -> None:
    process.kill()
    await process.wait()


def before(events: Iterable[Event], at: float) -> list[Event]:
    """What was known when the power went; no answer that came later counts."""
    return [event for event in events if event.phase == "invoke" or event.at < at]


def _lost(known: list[Event], there: Found, outcome: Outcome) -> list[str]:
    """What was accepted and is not there, or not as it was sent; the figures too."""
    parts = Parts(known)
    lost = [asked.key for asked, end in parts.accepted if not there.has(end.id, asked.digest)]
    settles = [end for each in parts.settles.values() for _, end in each]
    outcome.counts.update(
        acked=len(parts.accepted),
        lost=len(lost),
        doubtful=sum(bool(asked.key) for asked, _ in parts.sends) - len(parts.accepted),
        settled=sum(end is not None and end.phase == "ok" for end in settles),
    )
    if not lost:
        return []
    return [f"{len(lost)} of {len(parts.accepted)} accepted messages are lost, such as {lost[0]}"]


def _failed(known: list[Event]) -> list[str]:
    """What failed before the cut."""
    return [
        f"a {event.kind} failed while there was power: {event.error}"
        for event in known
        if event.error and event.error != "lost"
    ]
