"""W1 to W5 on NATS, next to JetStream from Python: each on a server of its own, synced as often."""

from __future__ import annotations

from typing import Any

from ..figures import Goal
from ..runner import Job
from .load import BATCH, Load, least, library, most

_TITLES = {
    "one": "nats-py, JetStream",
    "many": f"nats-py, JetStream, {BATCH} at a time",
    "faststream": "FastStream, JetStream",
}
_MODULES = {"one": "jetstream", "many": "jetstream"}


def _jobs(store: str, kind: str, *keys: str, **arguments: Any) -> dict[str, Job]:
    """What each runs; how much of it together is a matter of the key."""
    jobs = {}
    for key in keys:
        own: dict[str, Any] = {"store": store, **arguments}
        if kind != "round_trip":
            many = key == "many" or (key == "faststream" and own["tasks"] > 1)
            own["batch"] = BATCH if many else 1
        elif key != "faststream":
            own["together"] = key == "many"
        jobs[key] = Job(f"loads.nats_{_MODULES.get(key, key)}:{kind}", own)
    return jobs


def loads(scale: int, store: str = "nats") -> list[Load]:
    """All of them; `scale` is how many messages, roughly; `store` says how its server syncs."""

    def load(
        name: str,
        ours: Job,
        limits: dict[str, Job],
        goals: dict[str, Goal],
        unit: str = "msgs/s",
    ) -> Load:
        return Load(name, store, ours, limits, goals, _TITLES, unit)

    few, many = 100 * scale, 1000 * scale
    one: dict[str, Any] = {"count": few, "tasks": 1}
    trips = {"count": few // 4}
    drain: dict[str, Any] = {"count": 5 * many // 2}
    hundred = library("stream", store, count=many, tasks=100, consumer="serve")
    single = _jobs(store, "stream", "one", "many", "faststream", **one)
    return [
        load(
            f"W1, {label}",
            library("stream", store, **one, consumer=consumer),
            single,
            least(many=1.2),
        )
        for label, consumer in (("claim() and ack()", "claim_and_ack"), ("receive()", "receive"))
    ] + [
        load(
            "W1b, serve(concurrency=100)",
            hundred,
            _jobs(store, "stream", "many", count=many, tasks=1, together=True),
            least(many=1.2),
        ),
        load(
            "W2, p50",
            library("round_trip", store, **trips),
            _jobs(store, "round_trip", "one", "many", "faststream", **trips),
            most(one=1, many=1),
            "µs",
        ),
        load(
            "W3, serve(concurrency=100)",
            hundred,
            _jobs(store, "stream", "one", "many", "faststream", count=few, tasks=100),
            least(many=1.5),
        ),
        load(
            "W4",
            library("broadcast", store, count=2 * scale, agents=100),
            _jobs(store, "broadcast", "one", "many", count=scale, agents=100),
            least(many=1.5),
        ),
        load(
            "W5, serve(concurrency=100)",
            library("drain", store, **drain, tasks=100, consumer="serve"),
            _jobs(store, "drain", "many", **drain) | _jobs(store, "drain", "one", count=few),
            least(many=1.2),
        ),
    ]
