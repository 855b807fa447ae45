"""W1 to W5 on PostgreSQL, next to job queues and a table: each on a server of its own, the same."""

from __future__ import annotations

from typing import Any

from ..figures import Goal
from ..runner import Job
from .load import BATCH, Load, least, library, most

_TITLES = {
    "pgqueuer": "PgQueuer, batches of 10",
    "procrastinate": "procrastinate",
    "rows": "asyncpg, SKIP LOCKED",
    "many_pgqueuer": f"PgQueuer, batches of {BATCH}",
    "batches": f"asyncpg, SKIP LOCKED, {BATCH} at a time",
}
_MODULES = {"many_pgqueuer": "pgqueuer"}
_BATCHES = {"pgqueuer": 10, "rows": 1, "many_pgqueuer": BATCH, "batches": BATCH}


def _jobs(kind: str, *keys: str, **arguments: Any) -> dict[str, Job]:
    """What each runs; `batch` is a matter of the key, and procrastinate has none."""
    jobs = {}
    for key in keys:
        own: dict[str, Any] = {"store": "postgres", **arguments}
        if key == "procrastinate":
            own["concurrency"] = own["tasks"]
        elif kind == "round_trip":
            own["together"] = key == "batches"
        else:
            own["batch"] = _BATCHES[key]
        jobs[key] = Job(f"loads.postgres_{_MODULES.get(key, key)}:{kind}", own)
    return jobs


def loads(scale: int) -> list[Load]:
    """All of them; `scale` is how many messages, roughly."""

    def load(
        name: str,
        ours: Job,
        limits: dict[str, Job],
        goals: dict[str, Goal],
        unit: str = "msgs/s",
    ) -> Load:
        return Load(name, "postgres", ours, limits, goals, _TITLES, unit)

    few, many = 100 * scale, 1000 * scale
    one: dict[str, Any] = {"count": few, "tasks": 1}
    trips = {"count": few // 4}
    drain: dict[str, Any] = {"count": 5 * many // 2}
    hundred = library("stream", "postgres", count=many, tasks=100, consumer="serve")
    single = _jobs("stream", "pgqueuer", "procrastinate", "rows", "batches", **one)
    return [
        load(
            f"W1, {label}",
            library("stream", "postgres", **one, consumer=consumer),
            single,
            least(pgqueuer=1.5),
        )
        for label, consumer in (("claim() and ack()", "claim_and_ack"), ("receive()", "receive"))
    ] + [
        load(
            "W1b, serve(concurrency=100)",
            hundred,
            _jobs("stream", "many_pgqueuer", "batches", count=many, tasks=1, together=True),
            least(many_pgqueuer=4),
        ),
        load(
            "W2, p50",
            library("round_trip", "postgres", **trips),
            _jobs("round_trip", "rows", "batches", **trips),
            most(rows=0.6, batches=0.6),
            "µs",
        ),
        load(
            "W3, serve(concurrency=100)",
            hundred,
            _jobs("stream", *_TITLES, count=few, tasks=100),
            least(pgqueuer=20, many_pgqueuer=20),
        ),
        load(
            "W4",
            library("broadcast", "postgres", count=2 * scale, agents=100),
            _jobs("broadcast", "rows", "batches", count=scale, agents=100),
            least(batches=10),
        ),
        load(
            "W5, serve(concurrency=100)",
            library("drain", "postgres", **drain, tasks=100, consumer="serve"),
            _jobs("drain", "many_pgqueuer", "batches", **drain),
            least(many_pgqueuer=3),
        ),
    ]
