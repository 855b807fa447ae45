"""What may become of a message. Pure: no clock, no random number, no store.

Two rules hold here. Every function takes the time and the chance it needs as arguments.
And one table, TRANSITIONS, says which state follows which event; the stores are checked
against it and the diagram in the docs is drawn from it.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from operator import itemgetter
from typing import Literal

from msgspec import Struct

State = Literal["scheduled", "pending", "leased", "done", "dead", "cancelled"]
FINAL: frozenset[State] = frozenset({"done", "dead", "cancelled"})

DeadReason = Literal[
    "exhausted",
    "rejected",
    "expired",
    "hops",
    "full",
    "undecodable",
    "undeliverable",
    "unregistered",
]

TRANSITIONS: dict[tuple[State | None, str], State] = {
    (None, "send"): "pending",
    (None, "send with a delay"): "scheduled",
    (None, "too many hops, no room for a copy, no recipient"): "dead",
    (None, "answer"): "done",
    ("scheduled", "due"): "pending",
    ("scheduled", "expire"): "dead",
    ("scheduled", "unregister"): "dead",
    ("scheduled", "cancel"): "cancelled",
    ("scheduled", "late ack"): "done",
    ("scheduled", "late reject"): "dead",
    ("scheduled", "late extend"): "leased",
    ("pending", "claim"): "leased",
    ("pending", "expire"): "dead",
    ("pending", "unregister"): "dead",
    ("pending", "cancel"): "cancelled",
    ("pending", "late ack"): "done",
    ("pending", "late nack"): "scheduled",
    ("pending", "late reject"): "dead",
    ("pending", "late extend"): "leased",
    ("leased", "ack"): "done",
    ("leased", "give back, or nack without a delay"): "pending",
    ("leased", "nack or lease end"): "scheduled",
    ("leased", "reject, last attempt failed, or ttl over"): "dead",
    ("dead", "redrive"): "pending",
    ("dead", "discard"): "cancelled",
}
"""(state, event) -> state. None is a message not yet accepted. A late event comes after the
lease ended and before anyone claimed the message again."""


class RetryPolicy(Struct, frozen=True, array_like=True, gc=False):
    """When a failed attempt is tried again.

    The n-th retry comes after `min(cap, base * factor ** (n - 1))` seconds, with
    `jitter="full"` a random part of it ("Exponential Backoff And Jitter", AWS Architecture
    Blog, 2015). After `max_attempts` attempts the message is a dead letter.
    """

    max_attempts: int = 5
    base: float = 0.5
    factor: float = 2.0
    cap: float = 60.0
    jitter: Literal["full", "none"] = "full"

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, not {self.max_attempts}")
        if min(self.base, self.cap) < 0 or self.factor < 1:
            raise ValueError("base and cap must not be negative, factor must be at least 1")
        if self.jitter not in ("full", "none"):
            raise ValueError(f"jitter must be 'full' or 'none', not {self.jitter!r}")

    def delay(self, attempt: int, chance: float) -> float:
        """Seconds before what follows failed attempt `attempt` (from 1); chance in [0, 1)."""
        # Past 64 doublings the cap holds anyhow; unbounded, the power would overflow.
        most = min(self.cap, self.base * self.factor ** min(attempt - 1, 64))
        return most * chance if self.jitter == "full" else most


class Done(Struct, frozen=True, tag=True, gc=False):
    """The work is finished; the sends of its turn leave with it."""


class Again(Struct, frozen=True, tag=True, gc=False):
    """Not finished: due again after `delay` seconds. Uncounted attempts are given back."""

    delay: float
    error: str = ""
    counts: bool = True


class Dead(Struct, frozen=True, tag=True, gc=False):
    """Never to be delivered again, unless redriven."""

    reason: DeadReason
    error: str = ""


class Extend(Struct, frozen=True, tag=True, gc=False):
    """The lease now ends `seconds` from now; with `hold` the store keeps renewing it.

    hold: for how many seconds at most, as long as this process lives.
    """

    seconds: float
    hold: float | None = None


Outcome = Done | Again | Dead | Extend

GIVE_BACK = Again(0.0, counts=False)


def after_failure(
    attempt: int, policy: RetryPolicy, error: str, chance: float, delay: float | None = None
) -> Again | Dead:
    """What follows failed attempt `attempt`: another one, or the dead letters."""
    if attempt >= policy.max_attempts:
        return Dead("exhausted", error)
    return Again(policy.delay(attempt, chance) if delay is None else delay, error)


def spread(chance: float, index: int) -> float:
    """The chance of the index-th message of a batch, evenly spread (golden ratio sequence)."""
    return (chance + index * 0.6180339887498949) % 1.0


def seen_state(
    stored: State, now: float, *, due: float, lease_end: float, last: bool, expires: float | None
) -> State:
    """The state at `now` of a message last written as `stored`: what time alone has changed.

    due: when it may be claimed again; lease_end: when its lease ends; last: no attempt is left
    after this one; expires: the end of its ttl, None if it has none.
    """
    state = stored
    if state == "leased" and lease_end <= now:
        state = "dead" if last else "scheduled"
    if state == "scheduled" and due <= now:
        state = "pending"
    if state in ("pending", "scheduled") and expires is not None and expires <= now:
        state = "dead"
    return state


def delivery_order(waiting: Iterable[tuple[int, int, str]]) -> list[int]:
    """The places of (rank, place, thread) in the order an ordered mailbox would deliver them:
    by rank, then place, but none before what is older in its thread ("" is no thread)."""
    threads: dict[object, deque[tuple[int, int]]] = {}
    for rank, place, thread in sorted(waiting, key=itemgetter(1)):
        threads.setdefault(thread or place, deque()).append((rank, place))
    lines = list(threads.values())
    queue = [(*line[0], number) for number, line in enumerate(lines)]
    heapify(queue)
    order: list[int] = []
    while queue:
        _, place, number = heappop(queue)
        order.append(place)
        lines[number].popleft()
        if lines[number]:
            heappush(queue, (*lines[number][0], number))
    return order


def room(capacity: int, urgent: bool) -> int:
    """How many open messages a sender may fill a mailbox to; the last tenth is for urgent mail."""
    return capacity if urgent else capacity - capacity // 10


class Keeping(Struct, frozen=True, gc=False):
    """Until when a finished message keeps its body, and its row (key, digest, result)."""

    body: float
    row: float


def keeping(
    state: State,
    reason: DeadReason | None,
    settled: float,
    *,
    history: float,
    retention: float,
    keyed: bool,
    answer: bool,
) -> Keeping | None:
    """How long the store keeps what ended at `settled`; None: until it is discarded.

    keyed: it has an explicit key, or is a request; both outlive the body. answer: it is the
    result of a request.
    """
    if state == "dead" and reason != "expired":
        return None
    if answer or state == "dead":
        return Keeping(settled + retention, settled + retention)
    body = settled + history
    return Keeping(body, max(body, settled + retention) if keyed else body)


def token_of(message_id: str, fence: int) -> str:
    """The fencing token of the fence-th lease of a message."""
    return f"{message_id}.{fence}"


def parse_token(token: str) -> tuple[str, int]:
    """The message id and fence of a token; ValueError when it is none."""
    message_id, dot, fence = token.rpartition(".")
    if not dot or not (fence.isascii() and fence.isdigit()):
        raise ValueError(f"{token!r} is not a delivery token")
    return message_id, int(fence)


def sub_request_key(message_id: str, redrives: int, call: int) -> str:
    """The key of the call-th request made while handling a message, the same in a repeated turn."""
    return f"turn:{message_id}:{redrives}:{call}"


def copy_id(message_id: str, name: str) -> str:
    """The id of the copy of a broadcast for one agent: time-ordered like its original."""
    digest = hashlib.blake2b(f"{message_id}\0{name}".encode(), digest_size=10).hexdigest()
    return f"{message_id[:12]:0<12}{digest}"
