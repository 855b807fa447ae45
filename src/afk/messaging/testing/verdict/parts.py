"""A history, sorted out for those who judge it."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass

from ..history import SERVER, Event

Call = tuple[Event, Event | None]
"""How it was asked for, and how it ended, as far as its process lived to see it."""


@dataclass(frozen=True)
class Rules:
    """What holds where the history comes from.

    transactions: effects are in the store's own transaction, so one for each message that is done.
    max_attempts: of every consumer; None if they differ. ordered: deliveries of one sender and
    priority began in order (one consumer at a time, no retries overtaking). slack: seconds that a
    call may outlive its deadline. drained: all that waited was worked off; else it may wait still.
    """

    transactions: bool = False
    max_attempts: int | None = None
    ordered: bool = False
    slack: float = 1.0
    drained: bool = True


class Parts:
    """A history, sorted out."""

    def __init__(self, events: list[Event]) -> None:
        self.of: dict[tuple[str, str], list[Event]] = defaultdict(list)
        self.ends: dict[tuple[str, int], Event] = {}
        for event in events:
            self.of[event.kind, event.phase].append(event)
            if event.call and event.phase != "invoke":
                self.ends[event.process, event.call] = event
        self.sends = [(asked, self.end(asked)) for asked in self.of["send", "invoke"]]
        self.accepted = [(asked, end) for asked, end in self.sends if end and end.phase == "ok"]
        self.final = {event.id: event for event in self.of["final", "ok"]}
        self.faults = self.of["fault", "ok"]
        self.turns: dict[str, list[Event]] = defaultdict(list)
        """By message: each time it came into someone's hands, in order."""
        for event in sorted([*self.of["claim", "ok"], *self.of["handle", "invoke"]], key=at):
            self.turns[event.id].append(event)
        self.settles: dict[str, list[Call]] = defaultdict(list)
        self.settled: dict[tuple[str, str], list[Call]] = defaultdict(list)
        """The same, by message and token."""
        for event in self.of["settle", "invoke"]:
            call = event, self.end(event)
            self.settles[event.id].append(call)
            self.settled[event.id, event.token].append(call)
        self.redriven: dict[str, list[float]] = defaultdict(list)
        for event in self.of["redrive", "ok"]:
            self.redriven[event.id].append(event.at)
        self._faults: dict[str, list[float]] = defaultdict(list)
        for event in sorted(self.faults, key=at):
            self._faults[event.process].append(event.at)

    def end(self, asked: Event) -> Event | None:
        """How the call ended, as far as its process lived to see it."""
        return self.ends.get((asked.process, asked.call)) if asked.call else None

    def faulted(self, process: str, since: float, until: float) -> bool:
        """Whether something was done to this process, or to all, between the two."""
        return self._struck(process, since, until) or self._struck(SERVER, since, until)

    def held_up(self, turn: Event) -> bool:
        """Whether its process may have noted this turn long after it had been granted."""
        since = min(turn.since or turn.at, turn.at - turn.lease)
        return self._struck(turn.process, since, turn.at)

    def redriven_between(self, name: str, since: float, until: float) -> bool:
        """Whether the message was redriven between the two."""
        return any(since <= moment <= until for moment in self.redriven.get(name, ()))

    def _struck(self, process: str, since: float, until: float) -> bool:
        times = self._faults.get(process, [])
        first = bisect_left(times, since)
        return first < len(times) and times[first] <= until

    def counts(self) -> dict[str, int]:
        """Figures for a report."""
        return {
            "sends": len(self.sends),
            "accepted": len({end.id for _, end in self.accepted}),
            "unknown": sum(end is None or end.phase == "unknown" for _, end in self.sends),
            "deliveries": sum(map(len, self.turns.values())),
            "repeats": sum(len(turns) - 1 for turns in self.turns.values()),
            "effects": len(self.of["effect", "ok"]),
            "faults": len(self.faults),
            **Counter(event.outcome for event in self.final.values()),
        }


def at(event: Event) -> float:
    """When it was noted."""
    return event.at


def accepted(end: Event | None) -> bool:
    """Whether a call took effect for certain."""
    return end is not None and end.phase == "ok"


def refused(end: Event | None) -> bool:
    """Whether a call changed nothing for certain."""
    return end is not None and end.phase == "fail"
