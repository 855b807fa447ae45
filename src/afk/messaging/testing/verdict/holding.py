"""A message is in one pair of hands at a time, and each time counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from ..history import SERVER, Event
from .parts import Parts, Rules, accepted, refused

ENDS_IT = {"done", "dead"}
"""Outcomes of a settle after which a message is not delivered again."""


def effects_happen_once(history: Parts, rules: Rules) -> Iterator[str]:
    """I4: in the store's own transaction one effect for what is done, at most one for the rest."""
    if not rules.transactions:
        return
    effects = Counter(event.id for event in history.of["effect", "ok"])
    for name, count in effects.items():
        if count > 1:
            yield f"{name} has {count} effects"
        if name not in history.final or history.final[name].outcome != "done":
            yield f"{name} has an effect and is not done"
    for name, final in history.final.items():
        if final.outcome == "done" and not effects[name]:
            yield f"{name} is done without its effect"


def repeats_are_explained(history: Parts, rules: Rules) -> Iterator[str]:
    """I4: a message comes again only if the turn before failed, was given back, lost its lease,
    or something was done to its process."""
    for name, turns in history.turns.items():
        for before, after in pairwise(turns):
            if not (_over(history, before, after) or _redriven(history, before, after)):
                yield f"{name} came to {after.process} while {before.process} had it"


def _over(history: Parts, before: Event, after: Event) -> bool:
    """Whether a turn had to end before another one could begin, or may be the later one."""
    if history.faulted(before.process, before.at - before.lease, after.at):
        return True
    if history.held_up(after):
        return True
    if before.kind == "handle":
        end = history.end(before)
        return end is not None and end.phase != "ok" and end.at <= after.at
    if before.lease and (before.since or before.at) + before.lease <= after.at:
        return True
    return any(
        not (accepted(end) and asked.outcome in ENDS_IT)
        for asked, end in _releases(history, before, after)
    )


def _releases(history: Parts, before: Event, after: Event) -> Iterator[tuple[Event, Event | None]]:
    """The settles of a claim that may have let go of it before the next one."""
    for asked, end in history.settled.get((before.id, before.token), ()):
        if asked.at <= after.at and asked.outcome != "extend" and not refused(end):
            yield asked, end


def _redriven(history: Parts, before: Event, after: Event) -> bool:
    return history.redriven_between(before.id, before.at, after.at)


def one_lease_at_a_time(history: Parts, rules: Rules) -> Iterator[str]:
    """I5: nobody is given what another holds: before its lease can have ended, unless settled."""
    for name, turns in history.turns.items():
        for before, after in pairwise(turns):
            if before.kind != "claim" or after.at >= before.since + before.lease:
                continue
            if history.held_up(after) or _redriven(history, before, after):
                continue
            if not any(_releases(history, before, after)):
                yield f"{name} was given to {after.process} inside the lease of {before.process}"


def a_stale_settle_fails(history: Parts, rules: Rules) -> Iterator[str]:
    """I6: once another has the message, who had it before can settle nothing."""
    for name, settles in history.settles.items():
        turns = [turn for turn in history.turns.get(name, ()) if turn.token]
        places = {turn.token: place for place, turn in enumerate(turns)}
        ends: Counter[str] = Counter()
        for asked, end in settles:
            if not accepted(end):
                continue
            if asked.outcome != "extend":
                ends[asked.token] += 1
            place = places.get(asked.token)
            holder = None if place is None else _holder(turns, place, asked)
            if holder is not None:
                yield f"{name}: {asked.outcome} by {asked.process}, which {holder} had"
        for count in ends.values():
            if count > 1:
                yield f"{name} was settled {count} times by one holder"


def _holder(turns: list[Event], place: int, asked: Event) -> str | None:
    """Who had the message by then instead of the turn at this place."""
    for later in range(place + 1, len(turns)):
        if turns[later].at >= asked.at:
            break
        if _later(turns[later], turns[place]):
            return turns[later].process
    return None


def _later(turn: Event, mine: Event) -> bool:
    """Whether it was granted after mine for certain: a process can be held up before it notes."""
    return mine.at < turn.at and (turn.since > mine.at or turn.attempt > mine.attempt)


def attempts_are_counted(history: Parts, rules: Rules) -> Iterator[str]:
    """I7: attempts count from one without going back, never past the most; what is exhausted had
    them all."""
    for name, turns in history.turns.items():
        for before, after in pairwise(turns):
            if _redriven(history, before, after) or not after.attempt:
                continue
            if after.attempt <= before.attempt and not _may_not_count(history, before, after):
                yield f"{name}: attempt {after.attempt} after {before.attempt}"
            unseen = any(fault.at <= after.at for fault in history.faults[:1])
            if after.attempt > before.attempt + 1 and not unseen:
                yield f"{name}: attempt {after.attempt} right after {before.attempt}"
        for turn in turns:
            if rules.max_attempts and turn.attempt > rules.max_attempts:
                yield f"{name} had an attempt {turn.attempt}"
    for name, final in history.final.items():
        exhausted = final.outcome == "dead" and final.error == "exhausted"
        if exhausted and rules.max_attempts and final.attempt != rules.max_attempts:
            yield f"{name} is exhausted after {final.attempt} attempts"


def _may_not_count(history: Parts, before: Event, after: Event) -> bool:
    """Whether the earlier turn was given back, or may have been as its process was stopped; or the
    later one was claimed before it, and held up on the way."""
    if history.held_up(after) or history.faulted(SERVER, after.at - after.lease, after.at):
        return True
    if before.kind == "handle":
        end = history.end(before)
        return (end is not None and end.phase == "unknown") or history.faulted(
            before.process, before.at, after.at
        )
    return any(asked.outcome == "back" for asked, _ in _releases(history, before, after))
