"""What a message costs with few and with many others in the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack

from afk.messaging import MessageBus

from ..buses import STORES, fresh
from ..figures import Figure, Goal, compare
from ..loads.filling import lease, put
from ..loads.growing import BLOCK, NAME, block
from ..results import Result
from ..runner import Answer, Job, Process, say
from . import Wish

__all__ = ["STORES", "measure", "run"]

WAITING = ("delayed", "leased", "blocked")
"""What the others do: wait for their time, are leased, or stand behind the leased head of their
thread. Those that wait for their turn (`pending`) are one of the `curves`."""
SPARE = 50
THREADS = 100
_WHOLE = "send+claim+ack"
_STEEPER = {"sqlite": 1.5, "postgres": 1.5, "nats": 1.5, "nats_synced": 1.5}
"""Goals for the whole that are not 1.3."""


async def run(store: str, count: int, waiting: str) -> AsyncIterator[Answer]:
    """Fill; then, for each answer, send, claim and ack a block of messages, one at a time."""
    async with fresh(store, capacity=10_000_000) as bus:
        await bus.register(NAME, ordered=waiting == "blocked")
        await _fill(bus, count, waiting)
        await put(bus, NAME, 0, SPARE, lambda n: f"ready-{n}")
        number = SPARE
        while True:
            yield await block(bus, number)
            number += BLOCK


async def _fill(bus: MessageBus, count: int, waiting: str) -> None:
    if waiting == "blocked":
        await put(bus, NAME, 0, count, lambda n: f"thread-{n % THREADS}")
        await lease(bus, NAME, THREADS)
        return
    await put(bus, NAME, 0, count, lambda n: "", delay=86_400.0 if waiting == "delayed" else 0.0)
    if waiting == "leased":
        await lease(bus, NAME, count)


def measure(wish: Wish, store: str) -> Result:
    """One process for each size, filled once; they take turns at the blocks."""
    sizes = (1_000, 10_000, 100_000) if wish.quick else (1_000, 100_000, 1_000_000)
    turns = 3 if wish.quick else 9
    return Result(
        [figure for waiting in WAITING for figure in _variant(store, waiting, sizes, turns)]
    )


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
