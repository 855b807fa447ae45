"""Messages one at a time while something grows: agents, their size, processes, the history."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from afk.messaging import AgentMailbox, MessageBus, connect
from afk.messaging.lifecycle import Done
from afk.messaging.store import Claim, Turn

from ..buses import fresh, payload, percentile, place
from ..meter import served
from ..runner import Answer, Job, Process
from .filling import FILL, put

BLOCK = 200
NAME = "receiver"
_ROOM = 2 << 20
"""Bytes a mailbox takes, so that a text of 1 MiB is no exception."""


async def block(bus: MessageBus, first: int) -> Answer:
    """A block of messages through the mailbox `NAME`."""
    receiver = await bus.register(NAME)
    return await costs(await bus.register("sender"), [receiver], range(first, first + BLOCK))


async def costs(
    sender: AgentMailbox,
    receivers: Sequence[AgentMailbox],
    numbers: range,
    content: Callable[[int], Any] = payload,
) -> Answer:
    """Microseconds of a message, one after the other: the median of each step, added up."""
    took: dict[str, list[float]] = {"send": [], "claim": [], "ack": []}
    cpu = time.process_time()
    for number in numbers:
        receiver = receivers[number % len(receivers)]
        begin = time.perf_counter()
        await sender.send(receiver.name, content(number), thread_id=f"ready-{number}")
        sent = time.perf_counter()
        delivery = await receiver.claim(0)
        claimed = time.perf_counter()
        assert delivery is not None
        await delivery.ack()
        acked = time.perf_counter()
        took["send"].append(sent - begin)
        took["claim"].append(claimed - sent)
        took["ack"].append(acked - claimed)
    cpu = time.process_time() - cpu
    steps = {name: percentile(values, 0.5) * 1e6 for name, values in took.items()}
    take = steps["claim"] + steps["ack"]
    return {**steps, "take": take, "all": steps["send"] + take, "cpu": cpu / len(numbers) * 1e6}


async def agents(store: str, count: int) -> AsyncIterator[Answer]:
    """So many are registered; the messages are for some of them, all over the directory."""
    async with fresh(store) as bus:
        sender = await bus.register("sender")
        names = [f"agent-{number}" for number in range(count)]
        boxes: list[AgentMailbox] = []
        for first in range(0, count, 100):
            some = names[first : first + 100]
            boxes += await asyncio.gather(*[bus.register(name) for name in some])
        receivers = boxes[:: max(1, count // BLOCK)]
        number = 0
        while True:
            yield await costs(sender, receivers, range(number, number + BLOCK))
            number += BLOCK


async def sizes(store: str, count: int) -> AsyncIterator[Answer]:
    """A message's text has so many bytes; the bigger, the fewer of them."""
    text = ("The quick brown fox jumps over the lazy dog. " * (count // 45 + 1))[:count]
    messages = max(10, min(BLOCK, (10 << 20) // count))
    async with fresh(store, max_bytes=_ROOM) as bus:
        sender, receiver = await bus.register("sender"), await bus.register(NAME)
        number = 0
        while True:
            numbers = range(number, number + messages)
            yield await costs(sender, [receiver], numbers, lambda n: {"text": text, "step": n})
            number += messages


async def history(store: str, count: int) -> AsyncIterator[Answer]:
    """So many messages were handled before, and are kept."""
    options = {"history": 86_400.0, "history_max": 10 * count + 10_000, "capacity": 10_000_000}
    async with fresh(store, **options) as bus:
        await bus.register(NAME)
        for first in range(0, count, FILL):
            await _handled(bus, first, min(FILL, count - first))
        number = count
        while True:
            yield await block(bus, number)
            number += BLOCK


async def _handled(bus: MessageBus, first: int, count: int) -> None:
    """Through the store's port, many a step: only what is kept counts here."""
    await put(bus, NAME, first, count, lambda n: "")
    while count:
        batch = await bus._core.store.claim(Claim(mailbox=NAME, limit=count, lease=600.0))
        turns = [Turn(token=each.token, outcome=Done()) for each in batch.leased]
        assert turns
        await bus._core.store.put(tuple(turns))
        count -= len(turns)


async def processes(store: str, count: int) -> AsyncIterator[Answer]:
    """So many use one store at once, each with a mailbox of its own; what a message costs them all
    together, the server's processor included."""
    with place(store) as url, ExitStack() as stack:
        workers = [
            stack.enter_context(Process(Job("loads.growing:worker", {"url": url, "name": name})))
            for name in (f"agent-{number}" for number in range(count))
        ]
        while True:
            cpu, begin = served() or 0.0, time.perf_counter()
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.result()
            took = time.perf_counter() - begin
            cpu, messages = (served() or 0.0) - cpu, count * BLOCK
            yield {"all": took / messages * 1e6, "cpu": cpu / messages * 1e6}


async def worker(url: str, name: str) -> AsyncIterator[Answer]:
    """One of the processes."""
    async with connect(url) as bus:
        box = await bus.register(name)
        step = partial(costs, box, [box])
        number = 0
        while True:
            yield await step(range(number, number + BLOCK))
            number += BLOCK
