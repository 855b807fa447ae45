"""What a message costs while something grows: is it the same, however much there is of it?"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from ..buses import STORES
from ..curve import Curve, Point
from ..results import Result
from ..runner import Answer, Job, Process, say
from . import Wish, named

__all__ = ["STORES", "measure"]

_QUICK: Mapping[str, tuple[int, ...]] = {
    "pending": (1_000, 10_000, 100_000),
    "agents": (10, 100, 1_000, 10_000),
    "bytes": (200, 2_000, 20_000, 200_000, 1 << 20),
    "processes": (1, 2, 4, 8),
    "history": (0, 1_000, 10_000, 100_000),
}
_LARGE = {
    **_QUICK,
    "pending": (*_QUICK["pending"], 1_000_000),
    "history": (*_QUICK["history"], 1_000_000),
}
_TARGETS = {
    "pending": "parts.claim:run",
    "agents": "loads.growing:agents",
    "bytes": "loads.growing:sizes",
    "processes": "loads.growing:processes",
    "history": "loads.growing:history",
}


def measure(wish: Wish, store: str) -> Result:
    """A process for each point of a curve, all of them ready; they take turns."""
    points = _QUICK if wish.quick else _LARGE
    return Result(
        curves=[
            _curve(grows, store, points[grows], 3 if wish.quick else 7)
            for grows in _TARGETS
            if named(grows, wish.workloads) and not (grows == "processes" and store == "memory")
        ]
    )


def _curve(grows: str, store: str, sizes: tuple[int, ...], turns: int) -> Curve:
    answers: dict[int, list[Answer]] = {size: [] for size in sizes}
    with ExitStack() as stack:
        processes = {}
        for size in sizes:
            say(f"curves {store}: {grows} {size:,}")
            processes[size] = stack.enter_context(Process(_job(grows, store, size)))
            processes[size].ask()  # the first one warms up
        for _ in range(turns):
            for size, process in processes.items():
                answers[size].append(process.ask())
    points = [
        Point(size, [each["all"] for each in found], [each["cpu"] for each in found])
        for size, found in answers.items()
    ]
    return Curve(grows, store, points, flat=grows != "bytes")


def _job(grows: str, store: str, size: int) -> Job:
    arguments = {"store": store, "count": size}
    more = {"waiting": "pending"} if grows == "pending" else {}
    return Job(_TARGETS[grows], arguments | more)
