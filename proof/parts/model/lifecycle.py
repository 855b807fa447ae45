"""A small model of the lifecycle: what each call makes of all messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from afk.messaging import RetryPolicy
from afk.messaging.lifecycle import FINAL, TRANSITIONS
from afk.messaging.messages import PRIORITIES

POLICY = RetryPolicy(max_attempts=3, base=2.0, factor=2.0, jitter="none")


class Box(NamedTuple):
    """How a mailbox is registered."""

    ordered: bool = False
    capacity: int = 100_000


BOXES = {"plain": Box(), "tidy": Box(ordered=True), "small": Box(capacity=10)}

REACHABLE: dict[str | None, set[str]] = {}
"""The states that may follow each state, in one step or several."""
for _before in {state for state, _ in TRANSITIONS}:
    _found = {after for (state, _), after in TRANSITIONS.items() if state == _before}
    while _more := {a for (s, _), a in TRANSITIONS.items() if s in _found} - _found:
        _found |= _more
    REACHABLE[_before] = _found


class Asked(NamedTuple):
    """A send, as far as it matters here."""

    box: str
    content: str = "x"
    sender: str = "ada"
    priority: str = "normal"
    thread: str = ""
    delay: float = 0.0
    ttl: float | None = None
    key: str | None = None
    request: bool = False

    @property
    def name(self) -> tuple[str, str, str | None]:
        """Under which it is accepted once."""
        return self.sender, self.box, self.key

    @property
    def same(self) -> tuple[str, str, bool]:
        """What must be the same when it is sent again."""
        return self.content, self.thread, self.request


@dataclass
class Mail:
    """One message, as it must be."""

    id: str
    asked: Asked
    place: int
    due: float
    expires: float | None
    state: str
    attempt: int = 0
    fence: int = 0
    settled_fence: int = 0
    lease_end: float = 0.0
    reason: str | None = None
    answer: str | None = None

    @property
    def box(self) -> str:
        return self.asked.box

    @property
    def rank(self) -> int:
        return PRIORITIES.index(self.asked.priority)

    @property
    def thread(self) -> str:
        return self.asked.thread

    @property
    def open(self) -> bool:
        return self.state not in (*FINAL, "gone")

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
    keys: dict[tuple[str, str, str | None], Mail] = field(default_factory=dict)
    registered: set[str] = field(default_factory=lambda: set(BOXES))
    accepted: int = 0

    def verdict(self, asked: Asked) -> str:
        """What has to become of a send: new, duplicate, conflict, unknown or full."""
        first = self.keys.get(asked.name) if asked.key else None
        if first is not None:
            return "duplicate" if first.asked.same == asked.same else "conflict"
        if asked.box not in self.registered:
            return "unknown"
        return "new" if self.has_room(asked) else "full"

    def has_room(self, asked: Asked) -> bool:
        capacity = BOXES[asked.box].capacity
        most = capacity if asked.priority == "urgent" else capacity - capacity // 10
        return sum(m.open for m in self.mail.values() if m.box == asked.box) < most

    def accept(self, id_: str, asked: Asked, state: str = "scheduled") -> Mail:
        mail = Mail(
            id_,
            asked,
            self.next_place(),
            due=self.now + asked.delay,
            expires=None if asked.ttl is None else self.now + asked.ttl,
            state=state,
        )
        self.mail[id_] = mail
        if asked.key:
            self.keys[asked.name] = mail
        self.settle_time()
        return mail

    def answer(self, mail: Mail, id_: str, answer: str) -> None:
        """The first answer is the request's result, shown as a message that is done."""
        if mail.answer is None:
            mail.answer = answer
            self.accept(id_, Asked(mail.asked.sender, answer, sender=mail.box), state="done")

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
            if m.box == box and m.thread and BOXES[box].ordered and m.open:
                heads.setdefault(m.thread, m)
        return [
            m
            for m in self.mail.values()
            if m.box == box and m.state == "pending" and heads.get(m.thread, m) is m
        ]

    def held(self, m: Mail, fence: int) -> bool:
        """Whether the fence-th lease may still be settled."""
        return m.fence == fence != m.settled_fence and m.open
