"""What a workload takes: time, processor, memory, and the patience of who calls."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from .buses import percentile
from .runner import Answer

T = TypeVar("T")
_TICKS = os.sysconf("SC_CLK_TCK")


class Meter:
    """Measures from its making on. The library and its peers are measured by the same one."""

    def __init__(self) -> None:
        self.took: list[float] = []
        """Seconds of the calls that are timed."""
        self._served = served()
        self._cpu = time.process_time()
        self._begin = time.perf_counter()

    async def timed(self, call: Awaitable[T]) -> T:
        """Await a send, or a whole request."""
        begin = time.perf_counter()
        answer = await call
        self.took.append(time.perf_counter() - begin)
        return answer

    def answer(self, count: int) -> Answer:
        """Of so many messages: how many a second, and what each took of either side's processor.

        Microseconds, and megabytes of this process at most. server: None without one.
        """
        rate = count / (time.perf_counter() - self._begin)
        cpu = time.process_time() - self._cpu
        after, before = served(), self._served
        return {
            "rate": rate,
            "p50": percentile(self.took, 0.5) * 1e6,
            "p99": percentile(self.took, 0.99) * 1e6,
            "cpu": cpu / count * 1e6,
            "server": None if after is None else (after - (before or 0)) / count * 1e6,
            "rss": peak(),
        }


def peak() -> float:
    """Megabytes of memory this process held at most."""
    status = Path("/proc/self/status").read_text("utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def served() -> float | None:
    """Processor seconds of what this process started and what that did; None if nothing runs."""
    spent = [_spent(pid) for pid in _descendants(os.getpid())]
    return sum(spent) if spent else None


def _spent(pid: int) -> float:
    """User and system, of the process and of its children that have ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS
    return 0.0


def _descendants(pid: int) -> Iterator[int]:
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, path.read_text("utf-8").split()):
                yield child
                yield from _descendants(child)
