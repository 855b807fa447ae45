"""At which step of a message's life someone was killed, as far as that can be told afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from afk.messaging.testing.history import SERVER, Event
from afk.messaging.testing.verdict import Parts

from .clients import GRAVE

RIGHT_AFTER = 0.005
"""Seconds that a worker takes to settle."""
ENDED = ("ok", "fail")
SUICIDES = {
    "dies with a claimed message": "C2",
    "dies in a handler": "C2",
    "dies inside its transaction": "C3",
    "dies when told of a dead letter": "D2",
}


def hit(events: Iterable[Event]) -> Counter[str]:
    """How often each step was."""
    history = Parts(list(events))
    found = [*_in_sends(history), *_in_settles(history), *_unseen(history), *_held(history)]
    found += [SUICIDES[each.outcome] for each in history.faults if each.outcome in SUICIDES]
    found += _in_redrives(history)
    return Counter(f"at {step}" for step in found)


def _in_sends(history: Parts) -> Iterator[str]:
    """S1, S2: it was not stored, S3: it was. A sender who lives has sent it again under its key."""
    there = {event.digest for event in history.final.values()}
    answers: dict[str, list[Event]] = {}
    for asked, answer in history.accepted:
        answers.setdefault(asked.key, []).append(answer)
    for asked, end in history.sends:
        if asked.key and (end is None or end.phase == "unknown"):
            later = answers.get(asked.key)
            stored = later[0].duplicate if later else asked.digest in there
            yield "S3" if stored else "S1 or S2"


def _in_settles(history: Parts) -> Iterator[str]:
    """C4: it was not committed, since the message came again; C5: it was."""
    for name, settles in history.settles.items():
        for asked, end in settles:
            if asked.outcome == "done" and (end is None or end.phase == "unknown"):
                again = any(turn.at > asked.at for turn in history.turns.get(name, ()))
                yield "C4" if again else "C5"


def _unseen(history: Parts) -> Iterator[str]:
    """C1: an attempt that nobody lived to see."""
    for turns in history.turns.values():
        before = 0
        for turn in turns:
            if turn.attempt > before + 1:
                yield "C1"
            before = turn.attempt


def _held(history: Parts) -> Iterator[str]:
    """C2: what a dead one had in its handler. Killed right after its handler had ended: C4 or C5;
    D1, if it had failed for good. What its worker did by then, nobody saw."""
    deaths = _deaths(history)
    for turn in history.of["handle", "invoke"]:
        if turn.process not in deaths:
            continue
        end = history.end(turn)
        if end is None:
            yield "C2"
        elif 0 <= deaths[turn.process] - end.at < RIGHT_AFTER and end.phase in ENDED:
            yield "D1" if turn.mailbox == GRAVE else "C4 or C5"


def _in_redrives(history: Parts) -> Iterator[str]:
    """R1: the last that a dead one noted is a redrive; so it was not over."""
    deaths = _deaths(history)
    last: dict[str, Event] = {}
    for events in history.of.values():
        for event in events:
            if event.process in deaths and event.kind != "fault":
                last[event.process] = max(last.get(event.process, event), event, key=_at)
    return ("R1" for event in last.values() if event.kind == "redrive")


def _deaths(history: Parts) -> dict[str, float]:
    """When each who was killed was, by the first that is noted of it."""
    faults = sorted(history.faults, key=_at, reverse=True)
    return {fault.process: fault.at for fault in faults if fault.process != SERVER}


def _at(event: Event) -> float:
    return event.at
