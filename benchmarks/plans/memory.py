"""W1 to W5 in memory, next to asyncio.Queue, to autogen-core and anyio, and to the least that a
mailbox can be."""

from __future__ import annotations

from typing import Any

from ..figures import Goal
from ..runner import Job
from .load import Load, least, library, most

_QUEUES = {"queue": "asyncio.Queue", "anyio": "anyio, memory streams", "lane": "a lane by hand"}
_TITLES = {**_QUEUES, "autogen": "autogen-core"}


def loads(scale: int) -> list[Load]:
    """All of them; `scale` is how many messages, roughly."""

    def load(name: str, kind: str, goals: dict[str, Goal], **arguments: Any) -> Load:
        plain = {key: value for key, value in arguments.items() if key != "consumer"}
        return Load(
            name,
            "memory",
            library(kind, "memory", **arguments),
            {key: Job(f"loads.queues:{kind}", {"kind": key} | plain) for key in _QUEUES}
            | {"autogen": Job(f"loads.memory_autogen:{kind}", plain | fewer(plain["count"]))},
            goals,
            _TITLES,
            "µs" if kind == "round_trip" else "msgs/s",
        )

    def fewer(count: int) -> dict[str, int]:
        return {"count": max(2, count // 10)}

    many, few = 1000 * scale, 50 * scale
    one: dict[str, Any] = {"count": many, "tasks": 1}
    hundred: dict[str, Any] = {"count": many, "tasks": 100}
    w1 = least(queue=0.18, autogen=30)
    return [
        load("W1, receive()", "stream", w1, **one, consumer="receive"),
        load("W1, claim() and ack()", "stream", w1, **one, consumer="claim_and_ack"),
        load("W1b, receive()", "stream", {}, **hundred, consumer="receive"),
        load("W1b, serve(concurrency=100)", "stream", {}, **hundred, consumer="serve"),
        load("W2, p50", "round_trip", most(queue=2), count=100 * scale),
        load("W3, receive()", "stream", least(queue=0.18), **hundred, consumer="receive"),
        # Half of AFK's own memory bus, which reaches 0.78x asyncio.Queue.
        load("W4", "broadcast", least(queue=0.39), count=few // 5, agents=100),
        load(
            "W5, receive()",
            "drain",
            least(queue=0.15),
            **{**one, "count": 50_000},
            consumer="receive",
        ),
    ]
