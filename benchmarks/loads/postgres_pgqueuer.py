"""W1, W1b, W3 and W5 through PgQueuer, set up as its guides say: the queue manager on a connection
of its own, producers on a pool, autovacuum tuned by its own command, tables durable (the default).

A handled job is settled with others: when `batch` of them are, or after a tenth of a second. So an
ack is not confirmed before the next job is taken, and a crash repeats what was not settled. The
clock starts after a first job (in W5 before the first send), and stops when the manager has ended,
which settles the rest. Left out: W2, since a job has no answer, and W4, since a job is for one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pgqueuer import PgQueuer
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from ..buses import payload, place
from ..meter import Meter
from ..runner import Answer
from .over_postgres import FEW_CONNECTIONS, connection, pool

_NAME = "receiver"


class _Receiver:
    """A manager with one entrypoint, whose handler only counts."""

    def __init__(self, manager: PgQueuer, count: int) -> None:
        self._manager = manager
        self._left = count
        self.warm = asyncio.Event()
        manager.entrypoint(_NAME)(self._handle)

    async def _handle(self, job: Job) -> None:
        assert job.payload is not None
        json.loads(job.payload)
        self._left -= 1
        self.warm.set()
        if not self._left:
            self._manager.shutdown.set()

    async def work(self, batch: int) -> None:
        """Until all were handled and are settled."""
        await self._manager.run(batch_size=batch)


async def _send(queries: Queries, numbers: range) -> None:
    bodies = [json.dumps(payload(number)).encode() for number in numbers]
    if len(bodies) == 1:
        await queries.enqueue(_NAME, bodies[0])
    else:
        await queries.enqueue([_NAME] * len(bodies), bodies, [0] * len(bodies))


async def _fill(queries: Queries, count: int, tasks: int, batch: int, meter: Meter) -> None:
    async def some(begin: int) -> None:
        for first in range(begin * batch, count, tasks * batch):
            await meter.timed(_send(queries, range(first, min(first + batch, count))))

    await asyncio.gather(*[some(begin) for begin in range(tasks)])


@asynccontextmanager
async def _started(
    store: str, count: int, connections: int
) -> AsyncIterator[tuple[Queries, _Receiver]]:
    with place(store) as url:
        async with connection(url) as own, pool(url, connections, FEW_CONNECTIONS) as opened:
            queries = Queries.from_asyncpg_pool(opened)
            await queries.install()
            await queries.optimize_autovacuum()
            yield queries, _Receiver(PgQueuer.from_asyncpg_connection(own), count)


async def stream(
    store: str, count: int, tasks: int, batch: int, together: bool = False
) -> AsyncIterator[Answer]:
    """W1, W3; with `together`, sends are batched too: W1b."""
    async with _started(store, count + 1, tasks) as (queries, receiver):
        working = asyncio.create_task(receiver.work(batch))
        await _send(queries, range(1))
        await receiver.warm.wait()
        meter = Meter()
        await _fill(queries, count, tasks, batch if together else 1, meter)
        await working
        yield meter.answer(count)


async def drain(store: str, count: int, batch: int) -> AsyncIterator[Answer]:
    """W5."""
    async with _started(store, count, 1) as (queries, receiver):
        meter = Meter()
        await _fill(queries, count, 1, batch, meter)
        await receiver.work(batch)
        yield meter.answer(count)
