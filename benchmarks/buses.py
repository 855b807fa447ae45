"""Buses to measure, and the message they carry."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from afk.messaging import MessageBus, connect

STORES = ("memory", "sqlite", "redis", "postgres", "nats")
"""What is measured unless somebody says which."""
TITLES = {
    "memory": "memory",
    "sqlite": "SQLite",
    "redis": "Redis",
    "postgres": "PostgreSQL",
    "nats": "NATS",
    "nats_synced": "NATS, sync_interval always",
}


@contextmanager
def place(store: str) -> Iterator[str]:
    """The URL of an empty store; one that is a server is a process of its own."""
    with tempfile.TemporaryDirectory(prefix="afk-bench-") as folder:
        if store == "memory":
            yield "memory://"
        elif store == "sqlite":
            yield f"sqlite:///{folder}/bench.db"
        else:
            from .servers import server  # other stores need no server programs

            with server(store, folder) as url:
                yield url


@asynccontextmanager
async def fresh(store: str, **options: Any) -> AsyncIterator[MessageBus]:
    """A bus over an empty store, durability and everything else at its default."""
    with place(store) as url:
        async with connect(url, **options) as bus:
            yield bus


def payload(number: int) -> dict[str, Any]:
    """A dict of about 200 bytes as JSON, another one for each number."""
    return {
        "task": f"summarise chapter {number:08d}",
        "text": "The quick brown fox jumps over the lazy dog. " * 2,
        "tags": ["draft", "research", "physics"],
        "score": 0.25,
        "step": number,
        "final": False,
    }


def resident() -> float:
    """Megabytes of memory this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
