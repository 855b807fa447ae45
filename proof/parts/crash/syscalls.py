"""A short life in an SQLite file, killed at each of its system calls, one life after the other."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from afk.messaging import Delivery, MessageBus, connect
from afk.messaging.testing.history import History
from afk.messaging.testing.processes import Process, hear, run, say
from afk.messaging.testing.steps import Effects
from afk.messaging.testing.witness import Witness

from ...place import Place
from ...trial import Ground, Outcome, Run
from .batch import STARTING, Batch
from .clients import BOXES, EFFECT, GRAVE, LEASE, MAIL, NEXT

CALLS = (
    *("openat", "flock", "fcntl", "fallocate", "ftruncate", "mmap", "munmap"),
    *("pwrite64", "fdatasync", "fsync", "unlink"),
)
"""What can change a file, its locks or what is shared of it. Notes are written with others."""
Point = tuple[str, int]
"""A call, and for which time a thread makes it."""
_CALL = re.compile(r"^(\d+) +(\w+)\(", re.MULTILINE)


def lacks() -> str:
    """What keeps a process from being killed at a system call here; "" if nothing does."""
    if sys.platform != "linux":
        return "strace needs Linux"
    if shutil.which("strace") is None:
        return "strace not found; to get it: apt-get install strace"
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    if os.geteuid() != 0 and scope.exists() and scope.read_text().strip() != "0":
        return "strace may not look at a process that runs; it needs root"
    return ""


async def live(_: MessageBus, url: str, notes: str, name: str, table: str) -> None:
    """Open a new file, and close it in the end; with another bus, which is not open yet."""
    logging.disable()
    history = History(Path(notes), name)
    say("ready")
    hear()
    async with connect(url) as bus:
        await _work(bus, history, table)


async def _work(bus: MessageBus, history: History, table: str) -> None:
    """Send, claim, settle in every way, have a message die, and redrive it."""
    name = history.name
    mail, effect, grave = [Witness(bus.mailbox(box), history) for box in (MAIL, EFFECT, GRAVE)]
    for box in BOXES:
        await bus.register(box)
    for number, box in enumerate((MAIL, MAIL, MAIL, EFFECT, GRAVE)):
        await mail.send(box, {"key": f"{name}-{number}"}, key=f"{name}-{number}")
    for outcome in ("done", "again", "back"):
        delivery = await _claimed(mail)
        await mail.onward(delivery, NEXT, delivery.message.content)
        await mail.settle(delivery, outcome)
    it = await effect.mailbox.claim(STARTING, lease=LEASE)
    assert it is not None
    await effect.handler(_with_effect(Effects(table)), lease=LEASE)(it)
    letter = await _claimed(grave)
    await grave.settle(letter, "dead", "no")
    history.note("redrive", id=letter.message.id)
    await bus.redrive(letter.message.id)
    await mail.send(NEXT, {"key": f"{name}-last"}, key=f"{name}-last")


async def _claimed(witness: Witness) -> Delivery[Any]:
    delivery = await witness.claim(STARTING, lease=LEASE)
    assert delivery is not None
    return delivery


def _with_effect(effects: Effects) -> Any:
    async def work(delivery: Delivery[Any]) -> None:
        async with delivery.transaction() as connection:
            await effects.create(connection)
            await effects.add(connection, delivery.message.id)

    return work


def killed_at_calls(*, spread: bool) -> Run:
    """A round is a life, killed at the next call; or so that the rounds are spread over a life."""

    async def trial(ground: Ground, rounds: int, seed: int) -> Outcome:
        outcome = Outcome()
        points = await _points(ground, seed)
        step = max(1, len(points) // rounds) if spread else 1
        for number in range(rounds):
            point = points[(seed + number * step) % len(points)]
            outcome.add(await _judged(Batch(ground, seed + number), point))
        return outcome

    return trial


async def _points(ground: Ground, seed: int) -> list[Point]:
    """Of a life that nobody ends; strace counts by thread and name."""
    batch = Batch(ground, seed)
    seen: Counter[tuple[str, str]] = Counter()
    for call in await _lived(batch, None):
        seen[call] += 1
    batch.history.close()
    shutil.rmtree(batch.notes)
    return sorted({(name, time + 1) for (_, name), times in seen.items() for time in range(times)})


async def _judged(batch: Batch, point: Point) -> Outcome:
    made = await _lived(batch, point)
    await batch.set_up()
    outcome = await batch.judged()
    outcome.counts[f"in {point[0]}" if made else "outlived"] += 1
    name, time = point
    outcome.violations = [f"{name} {time}: {sentence}" for sentence in outcome.violations]
    return outcome


async def _lived(batch: Batch, point: Point | None) -> list[tuple[str, str]]:
    """The thread and the name of each call; none if it was to be killed and outlived it."""
    name, log = "life", batch.notes / "calls"
    batch.kills = 1
    args = batch.url, str(batch.notes), name, batch.effects.name
    async with run(Place("memory://"), live, *args) as process:
        await process.line(STARTING)
        strace = await _looked_at(process, log, point)
        await process.tell()
        killed = await process.wait(STARTING) != 0
        await strace.communicate()
    if killed:
        batch.fault(name, "kill")
    return _CALL.findall(log.read_text("utf-8", "replace")) if killed == bool(point) else []


async def _looked_at(
    process: Process, log: Path, point: Point | None
) -> asyncio.subprocess.Process:
    """By strace, which kills it when one of its threads is there."""
    calls = ",".join(CALLS)
    command = ["strace", "-f", "-p", str(process.pid), "-o", str(log), "-e", f"trace={calls}"]
    if point is not None:
        command += ["-e", f"inject={point[0]}:signal=KILL:when={point[1]}"]
    pipe = asyncio.subprocess.PIPE
    strace = await asyncio.create_subprocess_exec(*command, stderr=pipe)
    assert strace.stderr is not None
    said = await asyncio.wait_for(strace.stderr.readline(), STARTING)
    assert b"attached" in said, said.decode()
    return strace
