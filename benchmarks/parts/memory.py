"""What a pending message weighs, in the stores that have all of them in the process."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator

from ..buses import fresh, resident
from ..figures import Figure, Goal
from ..loads.library import send
from ..results import Result
from ..runner import Answer, Job, rounds
from . import Wish

STORES = ("memory", "nats")


async def weight(store: str, count: int) -> AsyncIterator[Answer]:
    """Bytes of memory for each message that waits."""
    async with fresh(store, capacity=2 * count) as bus:
        sender = await bus.register("sender")
        await bus.register("receiver")
        tasks = 1 if store == "memory" else 100  # together, where each would wait for a server
        await send(sender, 100, tasks)
        gc.collect()
        before = resident()
        await send(sender, count, tasks)
        gc.collect()
        yield {"value": (resident() - before) * 1e6 / count}


def measure(wish: Wish, store: str) -> Result:
    """NATS holds fewer: each of its messages is stored on its way."""
    count = (50_000 if wish.quick else 200_000) // (1 if store == "memory" else 4)
    job = Job("parts.memory:weight", {"store": store, "count": count})
    weights = [each["value"] for each in rounds({store: job}, 3)[store]]
    goal = Goal("<=", 1000, "bytes") if store == "memory" else None
    name = f"{store}: a pending message ({count:,} of them)"
    return Result([Figure(name, weights, "bytes", goal=goal)])
