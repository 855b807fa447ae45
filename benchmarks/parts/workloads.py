"""W1 to W5, next to limits and peers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..buses import STORES
from ..plans import memory, nats, postgres, redis, sqlite
from ..plans.load import Load
from ..races import OURS, Entrant, Race
from ..results import Result
from ..runner import rounds
from . import Wish, named

__all__ = ["STORES", "measure"]

_PLANS: dict[str, Callable[[int], list[Load]]] = {
    "memory": memory.loads,
    "sqlite": sqlite.loads,
    "redis": redis.loads,
    "postgres": postgres.loads,
    "nats": nats.loads,
    "nats_synced": partial(nats.loads, store="nats_synced"),
}


def measure(wish: Wish, store: str) -> Result:
    """Each workload in rounds of its own: the library, then each it is compared with."""
    loads = [
        load for load in _PLANS[store](8 if wish.quick else 20) if named(load.name, wish.workloads)
    ]
    return Result(races=[_race(load, wish) for load in loads])


def _race(load: Load, wish: Wish) -> Race:
    peers = [key for key in load.limits if named(load.titles[key], wish.peers)]
    jobs = {"": load.ours} | {key: load.limits[key] for key in peers}
    shown = {f"{load.store} {load.name}, {load.titles.get(key, OURS)}": key for key in jobs}
    answers = rounds({name: jobs[key] for name, key in shown.items()}, 3 if wish.quick else 5)
    entrants = [
        Entrant(load.titles.get(key, OURS), answers[name], load.goals.get(key))
        for name, key in shown.items()
    ]
    return Race(load.name, load.store, "p50" if load.unit == "µs" else "rate", entrants)
