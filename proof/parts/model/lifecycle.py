"""A small model of the lifecycle: what each call makes of all messages."""

from __future__ import annotations

from dataclasses import dataclass, field

from afk.messaging import RetryPolicy
from afk.messaging.lifecycle import FINAL, TRANSITIONS

POLICY = RetryPolicy(max_attempts=3, base=2.0, factor=2.0, jitter="none")
BOXES = {"plain": False, "tidy": True}
"""Mailboxes, and whether they are ordered."""

REACHABLE: dict[str | None, set[str]] = {}
"""The states that may follow each state, in one step or several."""
for _before in {state for state, _ in TRANSITIONS}:
    _found = {after for (state, _), after in TRANSITIONS.items() if state == _before}
    while _more := {a for (s, _), a in TRANSITIONS.items() if s in _found} - _found:
        _found |= _more
    REACHABLE[_before] = _found


@dataclass
class Mail:
    """One message, as it must be."""

    id: str
    box: str
    rank: int
    place: int
    thread: str
    due: float
    ttl: float | None
    expires: float | None
    state: str = "scheduled"
    attempt: int = 0
    fence: int = 0
    settled_fence: int = 0
    lease_end: float = 0.0
    reason: str | None = None

    def die(self, reason: str) -> None:
        self.state, self.reason = "dead", reason

    def fail(self, due: float, registered: bool) -> None:
        self.state, self.due = "scheduled", due
        if not registered:
            self.die("unregistered")


@dataclass
class Model:
    """All messages, and what each call makes of them."""

    now: float
    mail: dict[str, Mail] = field(default_factory=dict)
    registered: set[str] = field(default_factory=lambda: set(BOXES))
    accepted: int = 0

    def settle_time(self) -> None:
        for m in self.mail.values():
            if m.state == "leased" and m.lease_end <= self.now:
                if m.attempt >= POLICY.max_attempts:
                    m.die("exhausted")
                else:
                    m.state, m.due = "scheduled", m.lease_end + POLICY.delay(m.attempt, 0)
            if m.state == "scheduled" and m.due <= self.now:
                m.state = "pending"
                if m.box not in self.registered:  # it was leased when the name went
                    m.die("unregistered")
            waits = m.state in ("pending", "scheduled")
            if waits and m.expires is not None and m.expires <= self.now:
                m.die("expired")

    def next_place(self) -> int:
        self.accepted += 1
        return self.accepted

    def ready(self, box: str) -> list[Mail]:
        """What may be claimed: pending, and of an ordered thread only the oldest open one."""
        heads: dict[str, Mail] = {}
        for m in sorted(self.mail.values(), key=lambda m: m.place):
            if m.box == box and m.thread and BOXES[box] and m.state not in (*FINAL, "gone"):
                heads.setdefault(m.thread, m)
        return [
            m
            for m in self.mail.values()
            if m.box == box and m.state == "pending" and heads.get(m.thread, m) is m
        ]

    def held(self, m: Mail, fence: int) -> bool:
        """Whether the fence-th lease may still be settled."""
        return m.fence == fence != m.settled_fence and m.state not in (*FINAL, "gone")
