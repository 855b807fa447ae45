"""W1 to W5, next to limits and peers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ..figures import Figure, Result, compare
from ..plans import memory, nats, postgres, redis, sqlite
from ..plans.load import Load
from ..runner import rounds

_PLANS: dict[str, Callable[[int], list[Load]]] = {
    "memory": memory.loads,
    "sqlite": sqlite.loads,
    "redis": redis.loads,
    "postgres": postgres.loads,
    "nats": nats.loads,
    "nats_synced": partial(nats.loads, store="nats_synced"),
}


def measure(quick: bool, stores: Sequence[str]) -> Result:
    """Each workload in rounds of its own: the library, then each it is compared with."""
    loads = [load for store in stores for load in _PLANS[store](8 if quick else 20)]
    return Result([figure for load in loads for figure in _figures(load, quick)])


def _figures(load: Load, quick: bool) -> list[Figure]:
    answers = rounds(load.jobs(), 3 if quick else 5)
    ours, *theirs = [[answer["value"] for answer in each] for each in answers.values()]
    name = f"{load.store}: {load.name}"
    return [
        compare(name, ours, load.unit, load.titles[key], values, load.goals.get(key))
        for key, values in zip(load.limits, theirs, strict=True)
    ]
