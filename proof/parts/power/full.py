"""A disk that is full: nothing is accepted falsely, and with room again all goes on."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random

from afk.messaging import MessageBus, StoreError, connect
from afk.messaging.testing.history import Event, History, digest, read
from afk.messaging.testing.processes import run
from afk.messaging.testing.verdict import Parts, judge
from afk.messaging.testing.witness import Witness, note_the_end

from ...place import Place
from ...quiet import quiet
from ...trial import Ground, Outcome
from .checks import integrity
from .clients import MAIL, come_late
from .disk import disk
from .sites import File, Site, site

SIZE = {"sqlite": 32, "redis": 32, "nats": 32, "postgres": 512}
"""MiB of the disk."""
ROOM = range(2 << 20, 8 << 20)
"""Bytes that are left for messages; the rest is another's file, which goes in the end."""
SENDERS = 8
MORE = 3
"""Sends of each after its first failure, and claims."""
LEASE = 2.0
PATIENCE = 1.0
"""Seconds, of clients of a server that may have ended."""
BACK = 120.0
"""Seconds within which everything works again."""


async def fill(ground: Ground, rounds: int, seed: int) -> Outcome:
    """Send until the disk is full, and on; make room; send again, and work all off."""
    outcome = Outcome(rounds)
    for number in range(rounds):
        place = ground.folder / f"full-{seed}-{number}"
        with quiet():  # the store says what is wrong, often
            found = await _round(ground, place, Random(f"{seed}-{number}"), outcome)
        outcome.violations += [f"disk {number}: {each}" for each in found[:5]]
        shutil.rmtree(place)
    return outcome


async def _round(ground: Ground, place: Path, rng: Random, outcome: Outcome) -> list[str]:
    notes = place / "notes"
    notes.mkdir(parents=True)
    with disk(place / "small", SIZE[ground.store]) as small:
        store = site(ground, small.place, weak=False)
        store.start()
        try:
            sentences = await _fill_and_go_on(store, small.place, notes, rng)
            sentences += _judged(read(notes), outcome, at_once=isinstance(store, File))
        finally:
            store.kill()
        if isinstance(store, File):
            sentences += integrity(store.file(0))
    return sentences


async def _fill_and_go_on(store: Site, place: Path, notes: Path, rng: Random) -> list[str]:
    history = History(notes, "client")
    alone = isinstance(store, File)
    url = store.url(0) if alone else f"{store.url(0)}&patience={PATIENCE}"
    async with connect(url) as bus:
        mail = Witness(await bus.register(MAIL), history)
        ballast = _ballast(place, rng.choice(ROOM))
        await asyncio.gather(*(_until_full(mail, sender, rng) for sender in range(SENDERS)))
        sentences = await _come_late(place) if alone else []
        ballast.unlink()
        store.kill()  # a server may have ended by itself
        store.start()
        history.note("fault", process="*", outcome="room")
        async with asyncio.timeout(BACK):
            await _go_on(bus, mail, notes)
    history.close()
    return sentences


def _ballast(place: Path, room: int) -> Path:
    """Another's file, which leaves so much of the disk."""
    system = os.statvfs(place)
    with (place / "ballast").open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, system.f_bavail * system.f_frsize - room)
    return place / "ballast"


async def _come_late(place: Path) -> list[str]:
    """With not a byte left, another process opens another file: it may fail, and has to live."""
    plug = place / "plug"
    with plug.open("wb", buffering=0) as rest, suppress(OSError):
        while rest.write(b"x"):
            pass
    async with run(Place("memory://"), come_late, f"{place}/late.db") as process:
        code = await process.wait()
    plug.unlink()
    return [f"who came late ended with {code}"] if code else []


async def _go_on(bus: MessageBus, mail: Witness, notes: Path) -> None:
    """There is room: send again what failed, and work all off."""
    for asked, end in Parts(read(notes)).sends:
        while end is None or end.phase != "ok":
            with suppress(StoreError):
                await mail.send(MAIL, _text(asked.key), key=asked.key)
                break
    await asyncio.gather(*(_work_off(bus, mail) for _ in range(SENDERS)))
    await note_the_end(bus, mail.history, 0.0)


async def _until_full(mail: Witness, number: int, rng: Random) -> None:
    failures = 0
    for each in count():
        key = f"{number}-{each}"
        try:
            await mail.send(MAIL, _text(key), key=key)
            if rng.random() < 0.2:
                await _take(mail)
        except StoreError:
            failures += 1
            if failures > MORE:
                return
            with suppress(StoreError):
                await _take(mail)


async def _take(mail: Witness) -> bool:
    delivery = await mail.claim(0, lease=LEASE)
    if delivery is not None:
        await mail.settle(delivery, "done")
    return delivery is not None


async def _work_off(bus: MessageBus, mail: Witness) -> None:
    while True:
        if not await _take(mail):
            stats = (await bus.stats())[MAIL]
            if not stats.pending["all"] + stats.leased + stats.scheduled:
                return
            await asyncio.sleep(0.05)


def _text(key: str) -> str:
    """A content that cannot be made shorter."""
    chance = Random(key)
    return chance.randbytes(chance.randint(500, 100_000)).hex()


def _judged(events: list[Event], outcome: Outcome, *, at_once: bool) -> Iterator[str]:
    """Nothing is lost or invented, it was full, and with room nothing failed, if need be."""
    parts = Parts(events)
    [room] = [event.at for event in events if event.kind == "fault"]
    failed = [event for event in events if event.phase in {"fail", "unknown"}]
    sends = [event for event in failed if event.kind == "send" and event.at < room]
    outcome.counts.update(accepted=len(parts.accepted), failed=len(sends))
    assert sends, "the disk did not get full"
    if at_once:
        yield from (f"with room: {event.error}" for event in failed if event.at > room)
    yield from judge(events).violations
    there = {event.digest for event in parts.final.values()}
    if missing := {digest(_text(asked.key)) for asked, _ in parts.sends} - there:
        yield f"{len(missing)} messages are missing"
