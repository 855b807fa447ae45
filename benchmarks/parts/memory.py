"""What a pending message weighs, and what importing the package costs."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence

from ..buses import fresh, payload, resident
from ..figures import Figure, Goal, Result
from ..runner import Answer, Job, rounds


async def weight(count: int) -> AsyncIterator[Answer]:
    """Bytes of memory for each message that waits in the memory store."""
    async with fresh("memory", capacity=2 * count) as bus:
        sender = await bus.register("sender")
        await bus.register("receiver")
        await sender.send("receiver", payload(0))
        gc.collect()
        before = resident()
        for number in range(count):
            await sender.send("receiver", payload(number))
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
    """The weight of a message, then imports, in turns with bare interpreters; no store matters."""
    count = 50_000 if quick else 200_000
    weights = rounds({"memory": Job("parts.memory:weight", {"count": count})}, 3)["memory"]
    code = "import afk.messaging"
    _cpu(code)  # compiles
    needed = "import asyncio, msgspec"
    turns = [(_cpu("pass"), _cpu(needed), _cpu(code)) for _ in range(9 if quick else 25)]
    return Result(
        [
            Figure(
                f"memory: a pending message ({count:,} of them)",
                [each["value"] for each in weights],
                "bytes",
                goal=Goal("<=", 1000, "bytes"),
            ),
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
