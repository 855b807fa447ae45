"""Does a process, or a file, grow with the messages that went through?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from afk.messaging import AgentMailbox, Delivery, connect

from ..buses import TITLES, payload, place, resident
from ..figures import Figure, Goal, Table
from ..results import Result
from ..runner import Answer, Job, Process, say
from . import Wish

STORES = ("memory", "sqlite", "nats")
"""Redis grows elsewhere, and what PostgreSQL keeps is a part of its own."""
SAMPLES = 10
SENDERS = 100
WINDOW = 1000
"""So many are sent and not yet handled, at most."""
KEYED = 10
"""Every so many messages has an explicit key, which outlives its body."""
_HEAD = ["handled", "msgs/s", "RSS MB", "file MB", "log MB"]


async def run(store: str, count: int) -> AsyncIterator[Answer]:
    """`count` messages sent, handled and settled; an answer at the start and at each sample."""
    with place(store) as url:
        async with connect(url, retention=1.0, history=1.0) as bus:
            sender, receiver = await bus.register("sender"), await bus.register("receiver")
            flow = Flow(sender)
            worker = asyncio.create_task(receiver.serve(flow.handle, concurrency=SENDERS))
            try:
                yield await _sample(url, 0, 0.0)
                for first in range(0, count, count // SAMPLES):
                    numbers = range(first, first + count // SAMPLES)
                    yield await _sample(url, numbers.stop, await flow.send(numbers))
            finally:
                worker.cancel()
                await asyncio.gather(worker, return_exceptions=True)


class Flow:
    """Messages from many tasks to a worker that keeps up, more or less."""

    def __init__(self, sender: AgentMailbox) -> None:
        self._sender = sender
        self._window = asyncio.Semaphore(WINDOW)

    async def handle(self, delivery: Delivery[Any]) -> None:
        """The worker's handler."""
        self._window.release()

    async def send(self, numbers: range) -> float:
        """Send them; how many it were in a second."""
        begin = time.perf_counter()
        await asyncio.gather(*[self._some(numbers[task::SENDERS]) for task in range(SENDERS)])
        return len(numbers) / (time.perf_counter() - begin)

    async def _some(self, numbers: range) -> None:
        for number in numbers:
            await self._window.acquire()
            key = f"job-{number}" if number % KEYED == 0 else None
            await self._sender.send("receiver", payload(number), idempotency_key=key)

    async def handled(self) -> None:
        """Wait until all that was sent has been handled."""
        for _ in range(WINDOW):
            await self._window.acquire()
        for _ in range(WINDOW):
            self._window.release()


async def _sample(url: str, handled: int, rate: float) -> Answer:
    file, log = await _kept(url)
    return {"handled": handled, "rate": rate, "resident": resident(), "file": file, "log": log}


async def _kept(url: str) -> tuple[float, float]:
    """Megabytes of the file, or of the server's streams; and of the write-ahead log."""
    if url.startswith("sqlite:"):
        return _files(Path(url.removeprefix("sqlite:///")))
    if url.startswith("nats:"):
        import nats  # no business of the other stores

        async with await nats.connect(url) as client:
            streams = await client.jetstream().streams_info()
        return sum(stream.state.bytes for stream in streams) / 1e6, 0.0
    return 0.0, 0.0


def _files(path: Path) -> tuple[float, float]:
    log = path.with_name(path.name + "-wal")
    return path.stat().st_size / 1e6, log.stat().st_size / 1e6


def measure(wish: Wish, store: str) -> Result:
    """Once: it is long, and what is asked is where it ends."""
    count = 100_000 if wish.quick else 1_000_000
    with Process(Job("parts.growth:run", {"store": store, "count": count})) as process:
        samples = [process.ask()]
        for _ in range(SAMPLES):
            samples.append(process.ask())
            say(f"growth {store}: " + ", ".join(_HEAD) + ": " + ", ".join(_row(samples[-1])))
    title = f"{TITLES[store]}: {count:,} messages, history and retention 1 s"
    table = Table(title, _HEAD, [_row(sample) for sample in samples])
    return Result(_figures(store, samples), [table])


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
