"""W1 to W5, next to the limits that need no packages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..figures import Figure, Goal, Result, compare
from ..runner import Job, rounds

BATCH = 100
_LIMITS = {
    "memory": {"queue": "asyncio.Queue"},
    "sqlite": {"step": "sqlite3, one commit a step", "batch": f"sqlite3, commits of {BATCH}"},
}


@dataclass(frozen=True)
class Load:
    """A workload on one store: the library's job, its limits' jobs, and the goals."""

    name: str
    store: Literal["memory", "sqlite"]
    ours: Job
    limits: dict[str, Job]
    goals: dict[str, Goal]
    unit: str = "msgs/s"

    def jobs(self) -> dict[str, Job]:
        """All of them, to be run in turns."""
        name = f"{self.store} {self.name}"
        limits = {f"{name}, {_LIMITS[self.store][key]}": job for key, job in self.limits.items()}
        return {name: self.ours, **limits}


def _least(**limits: float) -> dict[str, Goal]:
    return {key: Goal(">=", limit) for key, limit in limits.items()}


def _most(**limits: float) -> dict[str, Goal]:
    return {key: Goal("<=", limit) for key, limit in limits.items()}


def _library(kind: str, store: str, **arguments: Any) -> Job:
    return Job(f"loads.library:{kind}", {"store": store, **arguments})


def _memory(scale: int) -> list[Load]:
    def load(name: str, kind: str, goals: dict[str, Goal], **arguments: Any) -> Load:
        plain = {key: value for key, value in arguments.items() if key != "consumer"}
        return Load(
            name,
            "memory",
            _library(kind, "memory", **arguments),
            {"queue": Job(f"loads.queues:{kind}", plain)},
            goals,
            "µs" if kind == "round_trip" else "msgs/s",
        )

    many, few = 1000 * scale, 50 * scale
    one: dict[str, Any] = {"count": many, "tasks": 1}
    hundred: dict[str, Any] = {"count": many, "tasks": 100}
    w1 = _least(queue=0.18)
    return [
        load("W1, receive()", "stream", w1, **one, consumer="receive"),
        load("W1, claim() and ack()", "stream", w1, **one, consumer="claim_and_ack"),
        load("W1b, receive()", "stream", {}, **hundred, consumer="receive"),
        load("W1b, serve(concurrency=100)", "stream", {}, **hundred, consumer="serve"),
        load("W2, p50", "round_trip", _most(queue=2), count=100 * scale),
        load("W3, receive()", "stream", _least(queue=0.18), **hundred, consumer="receive"),
        # Half of AFK's own memory bus, which reaches 0.78x asyncio.Queue.
        load("W4", "broadcast", _least(queue=0.39), count=few // 5, agents=100),
        load(
            "W5, receive()",
            "drain",
            _least(queue=0.15),
            **{**one, "count": 50_000},
            consumer="receive",
        ),
    ]


def _sqlite(scale: int) -> list[Load]:
    def load(
        name: str, ours: Job, theirs: str, goals: dict[str, Goal], slow: int, **arguments: Any
    ) -> Load:
        limits = {
            "step": Job(f"loads.plain:{theirs}", {"count": slow, "batch": 1, **arguments}),
            "batch": Job(f"loads.plain:{theirs}", {**ours.arguments, "batch": BATCH, **arguments}),
        }
        for job in limits.values():
            for key in ("store", "tasks", "consumer"):
                job.arguments.pop(key, None)
        return Load(name, "sqlite", ours, limits, goals)

    few, many = 20 * scale, 200 * scale
    one: dict[str, Any] = {"count": few, "tasks": 1}
    hundred: dict[str, Any] = {"count": many, "tasks": 100, "consumer": "serve"}
    w1 = _library("stream", "sqlite", **one, consumer="claim_and_ack")
    w1_receive = _library("stream", "sqlite", **one, consumer="receive")
    stream = _library("stream", "sqlite", **hundred)
    w2 = Load(
        "W2, p50",
        "sqlite",
        _library("round_trip", "sqlite", count=few // 2),
        {"step": Job("loads.plain:round_trip", {"count": few // 2})},
        _most(step=0.6),
        "µs",
    )
    w4 = _library("broadcast", "sqlite", count=max(2, scale // 2), agents=100)
    w5 = _library("drain", "sqlite", **{**hundred, "count": 5 * many})
    return [
        load("W1, claim() and ack()", w1, "stream", _least(step=1.6), few),
        load("W1, receive()", w1_receive, "stream", _least(step=1.6), few),
        load(
            "W1b, serve(concurrency=100)", stream, "stream", _least(batch=1.3), few, together=True
        ),
        w2,
        load("W3, serve(concurrency=100)", stream, "stream", _least(step=30, batch=10), few),
        load("W4", w4, "broadcast", _least(batch=15), max(1, scale // 10), agents=100),
        load("W5, serve(concurrency=100)", w5, "drain", _least(batch=0.9), few),
    ]


def measure(quick: bool) -> Result:
    """Each workload in rounds of its own: the library, then each limit."""
    scale = 8 if quick else 20
    return Result(
        [figure for load in _memory(scale) + _sqlite(scale) for figure in _figures(load, quick)]
    )


def _figures(load: Load, quick: bool) -> list[Figure]:
    answers = rounds(load.jobs(), 3 if quick else 5)
    ours, *theirs = [[answer["value"] for answer in each] for each in answers.values()]
    name = f"{load.store}: {load.name}"
    return [
        compare(name, ours, load.unit, f"{_LIMITS[load.store][key]}", values, load.goals.get(key))
        for key, values in zip(load.limits, theirs, strict=True)
    ]
