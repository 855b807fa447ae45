"""W1 and W3 through procrastinate, on its connector for psycopg's async connections.

A worker runs `concurrency` jobs at once, listens, and deletes a job when it is done
(`delete_jobs="always"`), each in a transaction of its own. The clock starts after a first job, and
stops when the worker has ended, which finishes the rest. Left out: W1b and W5, whose jobs would be
taken one at a time all the same; W2, since a job has no answer; W4, since a job is for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from procrastinate import App, PsycopgConnector

from ..buses import payload, place
from ..meter import Meter
from ..runner import Answer
from .over_postgres import FEW_CONNECTIONS

_QUEUE = "receiver"


@asynccontextmanager
async def _opened(store: str, connections: int) -> AsyncIterator[App]:
    size = min(connections, FEW_CONNECTIONS)
    with place(store) as url:
        connector = PsycopgConnector(conninfo=url, min_size=size, max_size=size)
        async with App(connector=connector).open_async() as app:
            await app.schema_manager.apply_schema_async()
            yield app


async def stream(store: str, count: int, tasks: int, concurrency: int) -> AsyncIterator[Answer]:
    """W1, W3."""
    async with _opened(store, tasks + concurrency) as app:
        handled = asyncio.Semaphore(0)

        @app.task(queue=_QUEUE)
        async def handle(content: dict[str, Any]) -> None:
            handled.release()

        async def some(first: int) -> None:
            for number in range(first, count, tasks):
                await meter.timed(handle.defer_async(content=payload(number)))

        working = asyncio.create_task(
            app.run_worker_async(
                queues=[_QUEUE],
                concurrency=concurrency,
                delete_jobs="always",
                install_signal_handlers=False,
            )
        )
        await handle.defer_async(content=payload(0))
        await handled.acquire()
        meter = Meter()
        await asyncio.gather(*[some(first) for first in range(tasks)])
        for _ in range(count):
            await handled.acquire()
        working.cancel()  # it finishes what it runs
        await asyncio.gather(working, return_exceptions=True)
        yield meter.answer(count)
