"""Does a process, or a file, grow with the messages that went through?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median
from typing import Any

from afk.messaging import AgentMailbox, Delivery

from ..buses import STORES, TITLES, fresh, payload, resident
from ..figures import Figure, Goal, Result, Table
from ..runner import Answer, Job, Process, say

SAMPLES = 10
SENDERS = 100
KEYED = 10
"""Every so many messages has an explicit key, which outlives its body."""
_HEAD = ["handled", "msgs/s", "RSS MB", "file MB", "log MB"]


async def run(store: str, count: int) -> AsyncIterator[Answer]:
    """`count` messages sent, handled and settled; an answer at the start and at each sample."""
    async with fresh(store, retention=1.0, history=1.0) as bus:
        sender, receiver = await bus.register("sender"), await bus.register("receiver")
        path = getattr(bus._core.store, "path", None)
        handled = asyncio.Semaphore(0)

        async def handler(delivery: Delivery[Any]) -> None:
            handled.release()

        worker = asyncio.create_task(receiver.serve(handler, concurrency=SENDERS))
        yield _sample(path, 0, 0.0)
        for first in range(0, count, count // SAMPLES):
            begin = time.perf_counter()
            numbers = range(first, first + count // SAMPLES)
            sending = [asyncio.create_task(_send(sender, numbers[n::SENDERS])) for n in range(100)]
            for _ in numbers:
                await handled.acquire()
            await asyncio.gather(*sending)
            yield _sample(path, numbers.stop, len(numbers) / (time.perf_counter() - begin))
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


async def _send(sender: AgentMailbox, numbers: range) -> None:
    for number in numbers:
        if number % KEYED == 0:
            await sender.send("receiver", payload(number), idempotency_key=f"job-{number}")
        else:
            await sender.send("receiver", payload(number))


def _sample(path: Path | None, handled: int, rate: float) -> Answer:
    size = {"file": 0.0, "log": 0.0}
    if path is not None:
        size["file"] = path.stat().st_size / 1e6
        size["log"] = path.with_name(path.name + "-wal").stat().st_size / 1e6
    return {"handled": handled, "rate": rate, "resident": resident(), **size}


def measure(quick: bool) -> Result:
    """Once: it is long, and what is asked is where it ends."""
    figures: list[Figure] = []
    tables: list[Table] = []
    for store in STORES:
        count = 100_000 if quick else 1_000_000
        with Process(Job("parts.growth:run", {"store": store, "count": count})) as process:
            samples = [process.ask()]
            for _ in range(SAMPLES):
                samples.append(process.ask())
                say(f"growth {store}: " + ", ".join(_HEAD) + ": " + ", ".join(_row(samples[-1])))
        figures += _figures(store, samples)
        title = f"{TITLES[store]}: {count:,} messages, history and retention 1 s"
        tables.append(Table(title, _HEAD, [_row(sample) for sample in samples]))
    return Result(figures, tables)


def _figures(store: str, samples: list[Answer]) -> list[Figure]:
    start, end = samples[0]["resident"], samples[-1]["resident"]
    half = len(samples) // 2
    name = f"{store}: RSS at the end over the start"
    figures = [
        Figure(name, [end - start], "MB", goal=Goal("<=", 50, "MB")),
        Figure(f"{store}: handled", [sample["rate"] for sample in samples[1:]], "msgs/s"),
    ]
    if samples[-1]["file"]:
        last, middle = max(sample["file"] for sample in samples[half:]), samples[half]["file"]
        figures.append(
            Figure(
                f"{store}: largest file of the second half",
                [last],
                "MB",
                "the file half way",
                [last / middle],
                Goal("<=", 1.1),
            )
        )
        early = median(sample["rate"] for sample in samples[1:4])
        late = median(sample["rate"] for sample in samples[-3:])
        figures.append(Figure(f"{store}: last rates", [late], "msgs/s", "first", [late / early]))
    return figures


def _row(sample: Answer) -> list[str]:
    return [
        f"{sample['handled']:,}",
        f"{sample['rate']:,.0f}",
        f"{sample['resident']:.0f}",
        f"{sample['file']:.1f}",
        f"{sample['log']:.1f}",
    ]
