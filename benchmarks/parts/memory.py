"""What a pending message weighs, and what importing the package costs."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence

from ..buses import fresh, resident
from ..figures import Figure, Goal, Result
from ..loads.library import send
from ..runner import Answer, Job, rounds

_HOLDERS = ("memory", "nats")
"""The stores that have all that waits in the process."""


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


def _cpu(code: str) -> float:
    """Milliseconds of CPU of an interpreter that runs `code`."""
    process = subprocess.Popen([sys.executable, "-c", code])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return (usage.ru_utime + usage.ru_stime) * 1000


def measure(quick: bool, stores: Sequence[str]) -> Result:
    """The weight of a message, then imports, in turns with bare interpreters; those need no store.

    NATS holds fewer: each of its messages is stored on its way.
    """
    count = 50_000 if quick else 200_000
    counts = {"memory": count, "nats": count // 4}
    holders = [store for store in _HOLDERS if store in stores]
    jobs = {
        store: Job("parts.memory:weight", {"store": store, "count": counts[store]})
        for store in holders
    }
    weights = rounds(jobs, 3)
    code = "import afk.messaging"
    _cpu(code)  # compiles
    needed = "import asyncio, msgspec"
    turns = [(_cpu("pass"), _cpu(needed), _cpu(code)) for _ in range(9 if quick else 25)]
    return Result(
        [
            Figure(
                f"{store}: a pending message ({counts[store]:,} of them)",
                [each["value"] for each in weights[store]],
                "bytes",
                goal=Goal("<=", 1000, "bytes") if store == "memory" else None,
            )
            for store in holders
        ]
        + [
            Figure("the bare interpreter", [bare for bare, _, _ in turns], "CPU ms"),
            Figure(
                "import asyncio, msgspec, over the bare interpreter",
                [part - bare for bare, part, _ in turns],
                "CPU ms",
            ),
            Figure(
                "import afk.messaging, over the bare interpreter",
                [whole - bare for bare, _, whole in turns],
                "CPU ms",
                goal=Goal("<=", 60, "CPU ms"),
            ),
        ]
    )
