"""Does a process, or a file, grow with the messages that went through?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from afk.messaging import AgentMailbox, Delivery

from ..buses import TITLES, fresh, payload, resident
from ..figures import Figure, Goal, Result, Table
from ..runner import Answer, Job, Process, say

SAMPLES = 10
SENDERS = 100
WINDOW = 1000
"""So many are sent and not yet handled, at most."""
KEYED = 10
"""Every so many messages has an explicit key, which outlives its body."""
_HEAD = ["handled", "msgs/s", "RSS MB", "file MB", "log MB"]


async def run(store: str, count: int) -> AsyncIterator[Answer]:
    """`count` messages sent, handled and settled; an answer at the start and at each sample."""
    async with fresh(store, retention=1.0, history=1.0) as bus:
        sender, receiver = await bus.register("sender"), await bus.register("receiver")
        path = getattr(bus._core.store, "path", None)
        window = asyncio.Semaphore(WINDOW)

        async def handler(delivery: Delivery[Any]) -> None:
            window.release()

        worker = asyncio.create_task(receiver.serve(handler, concurrency=SENDERS))
        try:
            yield _sample(path, 0, 0.0)
            for first in range(0, count, count // SAMPLES):
                begin = time.perf_counter()
                numbers = range(first, first + count // SAMPLES)
                senders = [_send(sender, numbers[n::SENDERS], window) for n in range(SENDERS)]
                await asyncio.gather(*senders)
                yield _sample(path, numbers.stop, len(numbers) / (time.perf_counter() - begin))
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)


async def _send(mailbox: AgentMailbox, numbers: range, window: asyncio.Semaphore) -> None:
    for number in numbers:
        await window.acquire()
        key = f"job-{number}" if number % KEYED == 0 else None
        await mailbox.send("receiver", payload(number), idempotency_key=key)


def _sample(path: Path | None, handled: int, rate: float) -> Answer:
    size = {"file": 0.0, "log": 0.0}
    if path is not None:
        size["file"] = path.stat().st_size / 1e6
        size["log"] = path.with_name(path.name + "-wal").stat().st_size / 1e6
    return {"handled": handled, "rate": rate, "resident": resident(), **size}


def measure(quick: bool, stores: Sequence[str]) -> Result:
    """Once: it is long, and what is asked is where it ends. Redis grows elsewhere."""
    figures: list[Figure] = []
    tables: list[Table] = []
    for store in [store for store in stores if store != "redis"]:
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
    rates = [sample["rate"] for sample in samples[1:]]
    figures = [
        Figure(
            f"{store}: RSS at the end over the start",
            [end - start],
            "MB",
            goal=Goal("<=", 50, "MB"),
        ),
        Figure(f"{store}: sent, handled and settled", rates, "msgs/s"),
    ]
    if samples[-1]["file"]:
        half = len(samples) // 2
        early, late = [
            max(sample["file"] for sample in part) for part in (samples[:half], samples[half:])
        ]
        name = f"{store}: largest file, second half"
        levels = Goal("<=", 1.25)
        figures.append(Figure(name, [late], "MB", "first half", [late / early], levels))
    return figures


def _row(sample: Answer) -> list[str]:
    return [
        f"{sample['handled']:,}",
        f"{sample['rate']:,.0f}",
        f"{sample['resident']:.0f}",
        f"{sample['file']:.1f}",
        f"{sample['log']:.1f}",
    ]
