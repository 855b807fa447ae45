"""W1 to W5 on Redis, next to what is built on redis-py: each on a server of its own, as durable."""

from __future__ import annotations

from typing import Any

from ..runner import Job
from .load import BATCH, Load, least, library, most

_TITLES = {
    "lists": "redis-py, reliable lists",
    "streams": "redis-py, streams",
    "faststream": "FastStream, streams",
    "many_lists": f"redis-py, reliable lists, {BATCH} at a time",
    "many_streams": f"redis-py, streams, {BATCH} at a time",
    "trims": f"redis-py, lists for one reader, {BATCH} at a time",
}
_MODULES = {"many_lists": "lists", "many_streams": "streams"}
_MANY = ("many_lists", "many_streams", "trims")


def _jobs(kind: str, keys: tuple[str, ...], **arguments: Any) -> dict[str, Job]:
    """What each runs; `batch` is a matter of the key, where there is one."""
    batch = {key: {"batch": BATCH if key in _MANY else 1} for key in keys if key != "faststream"}
    return {
        key: Job(
            f"loads.redis_{_MODULES.get(key, key)}:{kind}",
            {"store": "redis"} | arguments | ({} if kind == "round_trip" else batch.get(key, {})),
        )
        for key in keys
    }


def loads(scale: int) -> list[Load]:
    """All of them; `scale` is how many messages, roughly."""
    few, many = 100 * scale, 1000 * scale
    one: dict[str, Any] = {"count": few, "tasks": 1}
    single = _jobs("stream", ("lists", "streams", "faststream"), **one)
    hundred = library("stream", "redis", count=many, tasks=100, consumer="serve")
    drain: dict[str, Any] = {"count": 5 * many // 2}

    def load(
        name: str, ours: Job, limits: dict[str, Job], goals: Any, unit: str = "msgs/s"
    ) -> Load:
        return Load(name, "redis", ours, limits, goals, _TITLES, unit)

    return [
        load(
            f"W1, {label}",
            library("stream", "redis", **one, consumer=consumer),
            single,
            least(lists=2),
        )
        for label, consumer in (("claim() and ack()", "claim_and_ack"), ("receive()", "receive"))
    ] + [
        load(
            "W1b, serve(concurrency=100)",
            hundred,
            _jobs("stream", _MANY, count=many, tasks=1, together=True),
            least(many_lists=0.8, many_streams=2.5, trims=0.8),
        ),
        load(
            "W2, p50",
            library("round_trip", "redis", count=few // 4),
            _jobs("round_trip", ("lists", "streams", "faststream"), count=few // 4),
            most(lists=0.45),
            "µs",
        ),
        load(
            "W3, serve(concurrency=100)",
            hundred,
            _jobs("stream", tuple(_TITLES), count=few, tasks=100),
            least(lists=8, streams=8, many_lists=8, many_streams=8, trims=8),
        ),
        load(
            "W4",
            library("broadcast", "redis", count=2 * scale, agents=100),
            _jobs("broadcast", ("lists", "streams", "many_streams"), count=scale, agents=100),
            least(lists=5, streams=5),
        ),
        load(
            "W5, serve(concurrency=100)",
            library("drain", "redis", **drain, tasks=100, consumer="serve"),
            _jobs("drain", _MANY, **drain),
            least(many_lists=0.8, trims=0.8),
        ),
    ]
