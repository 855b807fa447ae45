"""W1 to W5 on SQLite, next to a plain table, and to what others keep there."""

from __future__ import annotations

from typing import Any

from ..figures import Goal
from ..runner import Job
from .load import BATCH, Load, least, library, most

_TITLES = {
    "step": "sqlite3, one commit a step",
    "batch": f"sqlite3, commits of {BATCH}",
    "huey": "huey",
    "persistqueue": "persist-queue",
    "aiosqlite": "aiosqlite, one commit a step",
}


def _peers(kind: str, **arguments: Any) -> dict[str, Job]:
    """Packages that keep a queue in SQLite, or await it."""
    return {
        key: Job(f"loads.sqlite_{key}:{kind}", {"store": "sqlite", **arguments})
        for key in ("huey", "persistqueue", "aiosqlite")
    }


def loads(scale: int) -> list[Load]:
    """All of them; `scale` is how many messages, roughly."""

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
        if theirs == "stream" and "together" not in arguments:
            limits |= _peers("stream", count=slow, tasks=ours.arguments["tasks"])
        return Load(name, "sqlite", ours, limits, goals, _TITLES)

    few, many = 20 * scale, 200 * scale
    one: dict[str, Any] = {"count": few, "tasks": 1}
    hundred: dict[str, Any] = {"count": many, "tasks": 100, "consumer": "serve"}
    w1 = library("stream", "sqlite", **one, consumer="claim_and_ack")
    w1_receive = library("stream", "sqlite", **one, consumer="receive")
    stream = library("stream", "sqlite", **hundred)
    w2 = Load(
        "W2, p50",
        "sqlite",
        library("round_trip", "sqlite", count=few // 2),
        {
            "step": Job("loads.plain:round_trip", {"count": few // 2}),
            **_peers("round_trip", count=few // 2),
        },
        most(step=0.6),
        _TITLES,
        "µs",
    )
    w4 = library("broadcast", "sqlite", count=max(2, scale // 2), agents=100)
    w5 = library("drain", "sqlite", **{**hundred, "count": 5 * many})
    return [
        load("W1, claim() and ack()", w1, "stream", least(step=1.6), few),
        load("W1, receive()", w1_receive, "stream", least(step=1.6), few),
        load("W1b, serve(concurrency=100)", stream, "stream", least(batch=1.3), few, together=True),
        w2,
        load("W3, serve(concurrency=100)", stream, "stream", least(step=30, batch=10), few),
        load("W4", w4, "broadcast", least(batch=15), max(1, scale // 10), agents=100),
        load("W5, serve(concurrency=100)", w5, "drain", least(batch=0.9), few),
    ]
