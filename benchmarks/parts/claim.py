"""What a message costs with few and with many others in the store."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from typing import Any

from afk.messaging import AgentMessage, MessageBus
from afk.messaging.records import letter_record
from afk.messaging.sending import to_send
from afk.messaging.store import Claim, Send, Turn

from ..buses import fresh, payload, percentile
from ..figures import Figure, Goal, Result, compare
from ..runner import Answer, Job, Process, say

WAITING = ("pending", "delayed", "leased", "blocked")
"""What the others do: wait their turn, wait for their time, are leased, or stand behind the
leased head of their thread."""
NAME = "receiver"
SPARE = 50
BLOCK = 200
THREADS = 100
FILL = 1000
_WHOLE = "send+claim+ack"
_STEEPER = {"sqlite": 1.5, "postgres": 1.5, "nats": 1.5, "nats_synced": 1.5}
"""Goals for the whole that are not 1.3."""


async def run(store: str, count: int, waiting: str) -> AsyncIterator[Answer]:
    """Fill; then, for each answer, send, claim and ack a block of messages, one at a time."""
    async with fresh(store, capacity=10_000_000) as bus:
        await bus.register(NAME, ordered=waiting == "blocked")
        await _fill(bus, count, waiting)
        await _put(bus, 0, SPARE, lambda n: f"ready-{n}")
        number = SPARE
        while True:
            yield await block(bus, number)
            number += BLOCK


async def block(bus: MessageBus, first: int) -> Answer:
    """Microseconds of a message, one after the other: the median of each step, added up."""
    sender, receiver = await bus.register("sender"), await bus.register(NAME)
    took: dict[str, list[float]] = {"send": [], "claim": [], "ack": []}
    cpu = time.process_time()
    for number in range(first, first + BLOCK):
        begin = time.perf_counter()
        await sender.send(NAME, payload(number), thread_id=f"ready-{number}")
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
    return {**steps, "take": take, "all": steps["send"] + take, "cpu": cpu / BLOCK * 1e6}


async def _fill(bus: MessageBus, count: int, waiting: str) -> None:
    """Through the store's port, many sends a step: only what is stored counts here."""
    if waiting == "blocked":
        await _put(bus, 0, count, lambda n: f"thread-{n % THREADS}")
        await _lease(bus, THREADS)
        return
    await _put(bus, 0, count, lambda n: "", delay=86_400.0 if waiting == "delayed" else 0.0)
    if waiting == "leased":
        await _lease(bus, count)


async def _put(
    bus: MessageBus, first: int, count: int, thread: Callable[[int], str], delay: float = 0.0
) -> None:
    for start in range(first, first + count, FILL):
        sends = [
            _send(bus, number, thread(number), delay)
            for number in range(start, min(start + FILL, first + count))
        ]
        await bus._core.store.put(tuple([Turn(sends=(send,)) for send in sends]))


def _send(bus: MessageBus, number: int, thread: str, delay: float) -> Send:
    record = letter_record(AgentMessage("sender", NAME, payload(number)))
    send: Any = to_send(record, bus._core.settings, delay=delay)
    return Send(
        **{name: getattr(send, name) for name in Send.__struct_fields__} | {"thread": thread}
    )


async def _lease(bus: MessageBus, count: int) -> None:
    while count:
        claim = Claim(mailbox=NAME, limit=min(FILL, count), lease=86_400.0)
        batch = await bus._core.store.claim(claim)
        assert batch.leased
        count -= len(batch.leased)


def measure(quick: bool, stores: Sequence[str]) -> Result:
    """One process for each size, filled once; they take turns at the blocks."""
    sizes = (1_000, 10_000, 100_000) if quick else (1_000, 100_000, 1_000_000)
    figures: list[Figure] = []
    for store in stores:
        for waiting in WAITING:
            figures += _variant(store, waiting, sizes, 5 if quick else 9)
    return Result(figures)


def _variant(store: str, waiting: str, sizes: tuple[int, ...], turns: int) -> list[Figure]:
    answers: dict[int, list[Answer]] = {size: [] for size in sizes}
    with ExitStack() as stack:
        processes = {}
        for size in sizes:
            say(f"claim {store}: filling with {size:,} {waiting}")
            arguments = {"store": store, "count": size, "waiting": waiting}
            processes[size] = stack.enter_context(Process(Job("parts.claim:run", arguments)))
            processes[size].ask()  # the first block warms up
        for _ in range(turns):
            for size, process in processes.items():
                answers[size].append(process.ask())
    columns = {
        size: {name: [each[name] for each in answers[size]] for name in answers[size][0]}
        for size in sizes
    }
    least, first = columns[sizes[0]], f"{sizes[0]:,}"
    figures = [Figure(f"{store}: {first} {waiting}, {_WHOLE}", least["all"], "µs")]
    whole = Goal("<=", _STEEPER.get(store, 1.3))
    shown = {
        "take": ("claim+ack", Goal("<", 2)),
        "all": (_WHOLE, whole),
        "cpu": ("CPU of it", None),
    }
    for size in sizes[1:]:
        for column, (label, goal) in shown.items():
            name = f"{store}: {size:,} {waiting}, {label}"
            values, base = columns[size][column], least[column]
            figures.append(compare(name, values, "µs", first, base, goal))
    return figures
