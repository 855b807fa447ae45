"""What a PostgreSQL database keeps of the messages that went through, its vacuuming as shipped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from statistics import median
from typing import Any

import asyncpg

from afk.messaging import MessageBus, connect

from ..buses import place, resident
from ..figures import Figure, Goal, Table
from ..loads.growing import block
from ..results import Result
from ..runner import Answer, Job, Process, say
from . import Wish
from .growth import SAMPLES, SENDERS, Flow

_STORE = "postgres"
STORES = (_STORE,)
_SETTLED = 2.0
"""Seconds after which what was settled may be gone, and the server has counted its rows."""
_TABLES = """
SELECT relname AS name, pg_table_size(relid) / 1e6 AS rows, pg_indexes_size(relid) / 1e6 AS indexes,
       n_live_tup AS live, n_dead_tup AS dead, autovacuum_count AS vacuums
FROM pg_stat_user_tables ORDER BY pg_total_relation_size(relid) DESC
"""
_SUMS = ("rows", "indexes", "live", "dead", "vacuums")
_HEAD = ["handled", "msgs/s", "tables MB", "indexes MB", "live rows", "dead rows", "vacuums"]
_HEAD += ["send µs", "claim µs", "ack µs", "RSS MB"]


async def run(count: int) -> AsyncIterator[Answer]:
    """`count` messages sent, claimed and settled; an answer at the start and at each sample."""
    with place(_STORE) as url:
        async with connect(url, retention=1.0, history=1.0) as bus:
            flow = Flow(await bus.register("sender"))
            yield await _sample(bus, url, 0, 0.0)
            for first in range(0, count, count // SAMPLES):
                numbers = range(first, first + count // SAMPLES)
                rate = await _through(bus, flow, numbers)
                await asyncio.sleep(_SETTLED)
                yield await _sample(bus, url, numbers.stop, rate)


async def _through(bus: MessageBus, flow: Flow, numbers: range) -> float:
    receiver = await bus.register("receiver")
    worker = asyncio.create_task(receiver.serve(flow.handle, concurrency=SENDERS))
    rate = await flow.send(numbers)
    await flow.handled()
    worker.cancel()  # what its handlers finished is acked before it ends
    await asyncio.gather(worker, return_exceptions=True)
    return rate


async def _sample(bus: MessageBus, url: str, handled: int, rate: float) -> Answer:
    """First the tables, then a block of messages one at a time through the same mailbox."""
    connection = await asyncpg.connect(url)
    try:
        tables = [dict(row) for row in await connection.fetch(_TABLES)]
    finally:
        await connection.close()
    plain = [{key: _plain(value) for key, value in table.items()} for table in tables]
    took = await block(bus, handled)
    return {"handled": handled, "rate": rate, "tables": plain, "resident": resident(), **took}


def _plain(value: Any) -> str | float:
    return value if isinstance(value, str) else float(value)


def measure(wish: Wish, store: str) -> Result:
    """Once: it is long, and what is asked is where it ends."""
    count = 100_000 if wish.quick else 1_000_000
    with Process(Job("parts.churn:run", {"count": count})) as process:
        samples = [process.ask()]
        for _ in range(SAMPLES):
            samples.append(process.ask())
            say("churn: " + ", ".join(_HEAD) + ": " + ", ".join(_row(samples[-1])))
    title = f"PostgreSQL: {count:,} messages, history and retention 1 s"
    last = [
        [str(table["name"]), *[f"{table[key]:,.0f}" for key in _SUMS]]
        for table in samples[-1]["tables"]
    ]
    return Result(
        _figures(samples),
        [
            Table(title, _HEAD, [_row(sample) for sample in samples]),
            Table("PostgreSQL: each table in the end", ["table", *_HEAD[2:7]], last),
        ],
    )


def _figures(samples: list[Answer]) -> list[Figure]:
    def levels(
        name: str,
        unit: str,
        value: Callable[[Answer], float],
        join: Callable[[list[float]], float],
        limit: float,
    ) -> Figure:
        """The second half next to the first."""
        half = len(samples) // 2
        parts = samples[1 : half + 1], samples[half + 1 :]
        early, late = [join([value(each) for each in part]) for part in parts]
        goal = Goal("<=", limit)
        whole = f"{_STORE}: {name}, second half"
        return Figure(whole, [late], unit, "first half", [late / early], goal)

    rates = [sample["rate"] for sample in samples[1:]]
    return [
        Figure(f"{_STORE}: sent, handled and settled", rates, "msgs/s"),
        levels("largest tables and indexes", "MB", _size, max, 1.25),
        levels("claim", "µs", lambda sample: sample["claim"], median, 1.5),
        levels("send+claim+ack", "µs", lambda sample: sample["all"], median, 1.5),
    ]


def _size(sample: Answer) -> float:
    return _sum(sample, "rows") + _sum(sample, "indexes")


def _sum(sample: Answer, key: str) -> float:
    return sum(float(table[key]) for table in sample["tables"])


def _row(sample: Answer) -> list[str]:
    return [
        f"{sample['handled']:,}",
        f"{sample['rate']:,.0f}",
        *[f"{_sum(sample, key):,.1f}" for key in _SUMS[:2]],
        *[f"{_sum(sample, key):,.0f}" for key in _SUMS[2:]],
        *[f"{sample[step]:,.0f}" for step in ("send", "claim", "ack")],
        f"{sample['resident']:.0f}",
    ]
