"""The checker, on random histories of a model: it finds nothing, and each thing that is spoilt."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from afk.messaging.testing.history import Event
from afk.messaging.testing.verdict import Rules, judge

from .histories import LEASE, MAX_ATTEMPTS, Model

RULES = Rules(transactions=True, max_attempts=MAX_ATTEMPTS)
STEPS = 120
SEEDS = st.integers(0, 2**32)

Events = list[Event]
Spoil = Callable[[Events, random.Random], Events]


@settings(deadline=None, max_examples=200)
@given(SEEDS)
def test_nothing_is_found_in_what_the_model_did(seed: int) -> None:
    assert judge(Model(random.Random(seed)).run(STEPS), RULES).violations == []


def pick(events: Events, chance: random.Random, wanted: Callable[[Event], bool]) -> int:
    """The place of one of these; there must be one."""
    places = [place for place, event in enumerate(events) if wanted(event)]
    assume(places)
    return chance.choice(places)


def changed(events: Events, place: int, **fields: object) -> Events:
    return [*events[:place], replace(events[place], **fields), *events[place + 1 :]]


def accepted_ids(events: Events) -> set[str]:
    return {each.id for each in events if (each.kind, each.phase) == ("send", "ok")}


def acked(events: Events) -> Callable[[Event], bool]:
    return lambda each: (each.kind, each.phase, each.outcome) == ("settle", "ok", "done")


def final(*outcomes: str) -> Callable[[Event], bool]:
    return lambda each: each.kind == "final" and each.outcome in outcomes


def drop_a_final(events: Events, chance: random.Random) -> Events:
    accepted = accepted_ids(events)
    place = pick(events, chance, lambda each: each.kind == "final" and each.id in accepted)
    return events[:place] + events[place + 1 :]


def swap_a_digest(events: Events, chance: random.Random) -> Events:
    place = pick(events, chance, lambda each: each.kind in {"claim", "final"})
    return changed(events, place, digest="swapped")


def move_a_message(events: Events, chance: random.Random) -> Events:
    return changed(events, pick(events, chance, lambda each: each.kind == "claim"), mailbox="n")


def add_an_effect(events: Events, chance: random.Random) -> Events:
    place = pick(events, chance, lambda each: each.kind == "effect")
    return [*events, events[place]]


def drop_an_effect(events: Events, chance: random.Random) -> Events:
    place = pick(events, chance, lambda each: each.kind == "effect")
    return events[:place] + events[place + 1 :]


def repeat_a_delivery(events: Events, chance: random.Random) -> Events:
    """To another, while the first one has it."""
    place = pick(events, chance, lambda each: each.kind == "claim")
    turn = events[place]
    at = turn.at + 0.001
    again = replace(turn, process="eve", token="another", at=at, since=at)
    return [*events[: place + 1], again, *events[place + 1 :]]


def deliver_what_is_done(events: Events, chance: random.Random) -> Events:
    done = events[pick(events, chance, acked(events))]
    turn = next(each for each in events if each.kind == "claim" and each.token == done.token)
    at = events[-1].at + LEASE
    return [*events, replace(turn, process="eve", token="another", at=at, since=at)]


def accept_a_stale_settle(events: Events, chance: random.Random) -> Events:
    tokens: dict[str, str] = {}
    stale: set[int] = set()
    for event in events:
        if event.kind == "claim":
            tokens[event.id] = event.token
        elif event.kind == "settle" and event.phase == "fail" and tokens[event.id] != event.token:
            stale.add(event.call)
    place = pick(events, chance, lambda each: each.call in stale and each.phase == "fail")
    return changed(events, place, phase="ok", error="")


def bury_what_was_acked(events: Events, chance: random.Random) -> Events:
    done = {each.id for each in filter(acked(events), events)}
    place = pick(events, chance, lambda each: each.kind == "final" and each.id in done)
    return changed(events, place, outcome="dead", error="exhausted", attempt=MAX_ATTEMPTS)


def forget_a_reason(events: Events, chance: random.Random) -> Events:
    return changed(events, pick(events, chance, final("dead")), error="")


def leave_one_waiting(events: Events, chance: random.Random) -> Events:
    accepted = accepted_ids(events)
    place = pick(events, chance, lambda each: each.kind == "final" and each.id in accepted)
    return changed(events, place, outcome="leased")


def count_an_attempt_too_many(events: Events, chance: random.Random) -> Events:
    place = pick(events, chance, lambda each: each.kind == "claim")
    return changed(events, place, attempt=MAX_ATTEMPTS + 1)


def exhaust_one_too_soon(events: Events, chance: random.Random) -> Events:
    place = pick(events, chance, lambda each: each.kind == "final" and each.error == "exhausted")
    return changed(events, place, attempt=MAX_ATTEMPTS - 1)


def add_more_than_may_be_there(events: Events, chance: random.Random) -> Events:
    place = pick(events, chance, lambda each: each.kind == "final")
    sends = sum(each.kind == "send" and each.phase == "invoke" for each in events)
    more = [replace(events[place], id=f"more-{n}") for n in range(sends + 1)]
    return [*events, *more]


def give_a_key_two_ids(events: Events, chance: random.Random) -> Events:
    place = pick(events, chance, lambda each: each.kind == "send" and each.duplicate)
    first = events[place].id
    assume(sum(each.kind == "send" and each.id == first for each in events) > 1)
    return changed(events, place, id="another")


def accept_a_key_twice(events: Events, chance: random.Random) -> Events:
    news = {each.key for each in events if each.kind == "send" and each.id and not each.duplicate}
    place = pick(
        events,
        chance,
        lambda each: each.kind == "send" and each.duplicate and each.key in news,
    )
    return changed(events, place, duplicate=False)


def end_a_call_late(events: Events, chance: random.Random) -> Events:
    place = pick(events, chance, lambda each: each.kind == "send" and each.phase == "ok")
    end = events[place]
    at = end.at + 100
    asked = pick(events, chance, lambda each: each.call == end.call and each.phase == "invoke")
    return changed(changed(events, asked, deadline=1.0), place, at=at)


SPOILS: list[Spoil] = [
    drop_a_final,
    swap_a_digest,
    move_a_message,
    add_an_effect,
    drop_an_effect,
    repeat_a_delivery,
    deliver_what_is_done,
    accept_a_stale_settle,
    bury_what_was_acked,
    forget_a_reason,
    leave_one_waiting,
    count_an_attempt_too_many,
    exhaust_one_too_soon,
    add_more_than_may_be_there,
    give_a_key_two_ids,
    accept_a_key_twice,
    end_a_call_late,
]


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(seed=SEEDS)
def test_what_is_spoilt_is_found(spoil: Spoil, seed: int) -> None:
    chance = random.Random(seed)
    events = Model(chance).run(STEPS)
    assert judge(spoil(events, chance), RULES).violations
