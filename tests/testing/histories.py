"""Histories that are written by hand, or by a tiny model of a store."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from afk.messaging.testing.history import Event, Kind, Phase

MAX_ATTEMPTS = 3
LEASE = 10.0

Story = Callable[["Told"], Any]


class Told:
    """A history in the making: each note is a little later than the one before."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.now = 100.0
        self._calls = 0

    def note(self, kind: Kind, phase: Phase = "ok", **fields: Any) -> Event:
        self.now += 0.01
        event = Event(**{"kind": kind, "phase": phase, "at": self.now, "process": "p"} | fields)
        self.events.append(event)
        return event

    def call(self, kind: Kind, phase: Phase | None, ends: Any = None, **fields: Any) -> None:
        """A call and its end; None: nobody lived to see it."""
        self._calls += 1
        self.note(kind, "invoke", call=self._calls, **fields)
        if phase is not None:
            self.note(kind, phase, call=self._calls, **fields | (ends or {}))

    def send(self, name: str, phase: Phase | None = "ok", **fields: Any) -> None:
        ends = {"id": name, "duplicate": fields.pop("duplicate", False)} if phase == "ok" else {}
        known = {"process": "ann", "sender": "ann", "mailbox": "m", "digest": "d"}
        self.call("send", phase, ends, **known | fields)

    def claim(self, name: str, process: str = "bob", attempt: int = 1, **fields: Any) -> Event:
        token = f"{name}.{attempt}"
        since = self.now + 0.005
        known = {"mailbox": "m", "digest": "d", "token": token, "lease": LEASE, "since": since}
        return self.note("claim", id=name, process=process, attempt=attempt, **known | fields)

    def settle(
        self, turn: Event, outcome: str = "done", phase: Phase | None = "ok", **ends: Any
    ) -> None:
        known = {"id": turn.id, "token": turn.token, "outcome": outcome}
        self.call("settle", phase, ends, process=turn.process, **known)

    def handle(
        self,
        name: str,
        phase: Phase | None = "ok",
        process: str = "bob",
        attempt: int = 1,
        **fields: Any,
    ) -> None:
        known = {"id": name, "mailbox": "m", "digest": "d", "attempt": attempt}
        self.call("handle", phase, process=process, **known | fields)

    def final(self, name: str, outcome: str = "done", error: str = "", **fields: Any) -> None:
        known = {"mailbox": "m", "digest": "d", "attempt": 1}
        self.note("final", id=name, outcome=outcome, error=error, **known | fields)

    def over(self) -> list[Event]:
        self.note("drained")
        return self.events


def sent(told: Told, *names: str) -> None:
    for name in names:
        told.send(name)


def work(told: Told, name: str = "a", **fields: Any) -> None:
    told.settle(told.claim(name, **fields))


def left_waiting(told: Told) -> None:
    sent(told, "a")
    told.final("a", "pending")


@dataclass
class Message:
    """What the model keeps of a message."""

    key: str
    digest: str
    state: str = "pending"
    attempt: int = 0
    lease_end: float = 0.0
    error: str = ""
    turns: list[Event] = field(default_factory=list)


class Model:
    """A store without mistakes, its users, and what befalls them."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.told = Told()
        self.messages: dict[str, Message] = {}
        self.steps = (
            self.send,
            self.send,
            self.claim,
            self.claim,
            self.settle,
            self.settle,
            self.settle,
            self.crash,
            self.redrive,
            self.wait,
        )

    def run(self, steps: int) -> list[Event]:
        for _ in range(steps):
            self.chance.choice(self.steps)()
        return self.end()

    def send(self) -> None:
        known = list(self.messages)
        if known and self.chance.random() < 0.3:  # once more, under its key
            name = self.chance.choice(known)
            same = self.messages[name]
            self.told.send(name, key=same.key, digest=same.digest, duplicate=True)
            return
        name = f"m{len(known)}"
        phase: Phase | None = self.chance.choice(("ok", "ok", "ok", "ok", "fail", "unknown", None))
        stored = phase == "ok" or (phase != "fail" and self.chance.random() < 0.5)
        content = f"content of {name}{'' if stored else ', not stored'}{len(self.told.events)}"
        key = f"k{len(self.told.events)}"
        self.told.send(name, phase, key=key, digest=content)
        if stored:
            self.messages[name] = Message(key, content)

    def claim(self) -> None:
        self.let_time_pass()
        ready = [name for name, each in self.messages.items() if each.state == "pending"]
        if not ready:
            return
        name = self.chance.choice(ready)
        message = self.messages[name]
        message.attempt += 1
        process = self.chance.choice(("bob", "cat", "dan"))
        token = f"{name}.{len(message.turns)}"
        turn = self.told.claim(name, process, message.attempt, digest=message.digest, token=token)
        message.state, message.lease_end = "leased", turn.at + LEASE
        message.turns.append(turn)

    def let_time_pass(self) -> None:
        for message in self.messages.values():
            if message.state == "leased" and message.lease_end <= self.told.now:
                self.again(message)

    def again(self, message: Message) -> None:
        over = message.attempt >= MAX_ATTEMPTS
        message.state, message.error = ("dead", "exhausted") if over else ("pending", "")

    def settle(self) -> None:
        self.let_time_pass()
        turns = [turn for each in self.messages.values() for turn in each.turns]
        if not turns:
            return
        turn = self.chance.choice(turns)
        message = self.messages[turn.id]
        outcome = self.chance.choice(("done", "done", "again", "dead", "back"))
        if message.state != "leased" or message.turns[-1] is not turn:
            self.told.settle(turn, outcome, "fail", error="lost")
            return
        self.told.settle(turn, outcome, self.chance.choice(("ok", "ok", "ok", "unknown", None)))
        if outcome == "again":
            self.again(message)
        elif outcome == "back":
            message.attempt -= 1
            message.state = "pending"
        else:
            message.state = outcome
            message.error = "rejected" if outcome == "dead" else ""
            if outcome == "done":
                self.told.note("effect", id=turn.id)

    def crash(self) -> None:
        self.told.note("fault", process=self.chance.choice(("bob", "cat")), outcome="killed")

    def redrive(self) -> None:
        dead = [name for name, each in self.messages.items() if each.state == "dead"]
        if dead:
            name = self.chance.choice(dead)
            self.told.note("redrive", id=name)
            self.messages[name].state, self.messages[name].attempt = "pending", 0

    def wait(self) -> None:
        self.told.now += self.chance.random() * LEASE

    def end(self) -> list[Event]:
        """Work off what is left, and look."""
        while any(each.state in ("pending", "leased") for each in self.messages.values()):
            self.claim()
            for message in self.messages.values():
                if message.state == "leased" and message.lease_end > self.told.now:
                    self.told.settle(message.turns[-1])
                    self.told.note("effect", id=message.turns[-1].id)
                    message.state, message.error = "done", ""
        for name, each in self.messages.items():
            self.told.final(name, each.state, each.error, digest=each.digest, attempt=each.attempt)
        return self.told.over()
