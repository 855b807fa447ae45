"""What is at work when the power goes. Whatever was accepted is noted on another disk."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from afk.messaging import LeaseLostError, MessageBus, StoreError, connect
from afk.messaging.testing.history import History
from afk.messaging.testing.processes import say
from afk.messaging.testing.witness import Witness

MAIL, WORK, NEXT = BOXES = ("mail", "work", "next")
LEASE = 0.5
TURNS = 4
"""Consumers that send on what they work off."""
PARTS = 3
"""Messages that a turn sends with its ack."""
SIZES = (0, 40, 400, 400, 4000)


def letter(key: str) -> dict[str, str]:
    """What is sent under a key."""
    return {"key": key, "text": "." * Random(key).choice(SIZES)}


def part(of: str, number: int) -> dict[str, Any]:
    """What a turn sends on, for the message it worked off."""
    return {"of": of, "part": number}


async def traffic(bus: MessageBus, notes: str, senders: int) -> None:
    """So many send at once, and some take turns; until the end of this process."""
    logging.disable()  # what the store says after the cut is no news
    history = History(Path(notes), "client")
    mail, work, _ = [Witness(await bus.register(name), history) for name in BOXES]
    say(bus.durability)
    async with asyncio.TaskGroup() as tasks:
        for number in range(senders):
            tasks.create_task(_send(mail, number))
        for number in range(TURNS):
            tasks.create_task(_take_turns(work, number))


async def _send(mail: Witness, number: int) -> None:
    try:
        for count in range(1_000_000):
            key = f"{number}-{count}"
            await mail.send(MAIL, letter(key), key=key)
    except StoreError:
        await _end()


async def _take_turns(work: Witness, number: int) -> None:
    try:
        for count in range(1_000_000):
            key = f"work-{number}-{count}"
            await work.send(WORK, letter(key), key=key)
            await _take_turn(work)
    except StoreError:
        await _end()


async def _take_turn(work: Witness) -> None:
    delivery = await work.claim(LEASE, lease=LEASE)
    if delivery is None:
        return
    for number in range(PARTS):
        await work.onward(delivery, NEXT, part(delivery.message.id, number))
    with suppress(LeaseLostError):  # it took too long on a busy machine; the history shows that
        await work.settle(delivery, "done")


async def _end() -> None:
    """The power is gone: wait for the kill."""
    await asyncio.Event().wait()


async def append(bus: MessageBus, notes: str, file: str) -> None:
    """Write and sync line after line: a control, without any store."""
    history = History(Path(notes), "client")
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    say("begun")
    for number in range(1_000_000):
        try:
            os.write(handle, b"%d\n" % number)
            os.fsync(handle)
        except OSError:
            await _end()
        history.note("send", id=str(number))


async def come_late(bus: MessageBus, file: str) -> None:
    """Open a store on a disk that is full, which may fail."""
    with suppress(StoreError):
        async with connect(f"sqlite:///{file}") as late:
            await late.register(MAIL)
