"""The rules: what follows a failure, when, and which state follows which."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afk.messaging.lifecycle import (
    FINAL,
    TRANSITIONS,
    Again,
    Dead,
    DeadReason,
    RetryPolicy,
    State,
    after_failure,
    copy_id,
    keeping,
    parse_token,
    room,
    seen_state,
    spread,
    sub_request_key,
    token_of,
)

chances = st.floats(0, 1, exclude_max=True)
seconds = st.floats(0, 1e9)
policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 1000),
    base=st.floats(0, 1e6),
    factor=st.floats(1, 100),
    cap=st.floats(0, 1e6),
    jitter=st.sampled_from(["full", "none"]),
)

# -- transitions -------------------------------------------------------------------------


def test_nothing_leaves_a_final_state_but_the_dead() -> None:
    leaving = {state for state, _ in TRANSITIONS if state in FINAL}
    assert leaving == {"dead"}
    events = {event: to for (state, event), to in TRANSITIONS.items() if state == "dead"}
    assert events == {"redrive": "pending", "discard": "cancelled"}


def test_every_state_can_be_reached_and_be_left_or_is_final() -> None:
    states = set(get_args(State))
    assert set(TRANSITIONS.values()) == states
    assert {state for state, _ in TRANSITIONS if state} == states - {"done", "cancelled"}


def test_only_a_pending_message_is_claimed() -> None:
    claimed = [(state, to) for (state, event), to in TRANSITIONS.items() if event == "claim"]
    assert claimed == [("pending", "leased")]


# -- delays ------------------------------------------------------------------------------


@given(policies, st.integers(1, 10_000), chances)
def test_delays_are_bounded(policy: RetryPolicy, attempt: int, chance: float) -> None:
    delay = policy.delay(attempt, chance)
    assert 0 <= delay <= policy.cap
    assert delay <= policy.base * policy.factor ** min(attempt - 1, 64)


@given(policies, st.integers(1, 100), chances)
def test_delays_grow(policy: RetryPolicy, attempt: int, chance: float) -> None:
    assert policy.delay(attempt, chance) <= policy.delay(attempt + 1, chance)


def test_delays_as_documented() -> None:
    plain = RetryPolicy(jitter="none")
    assert [plain.delay(n, 0.9) for n in range(1, 10)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    full = RetryPolicy()
    assert [full.delay(n, 0.5) for n in (1, 2, 8)] == [0.25, 0.5, 30.0]
    assert full.delay(10**9, 0.999) < 60


@given(policies, st.integers(1, 1000), chances, st.none() | seconds)
def test_what_follows_a_failure(
    policy: RetryPolicy, attempt: int, chance: float, delay: float | None
) -> None:
    after = after_failure(attempt, policy, "boom", chance, delay)
    if attempt >= policy.max_attempts:
        assert after == Dead("exhausted", "boom")
    else:
        expected = policy.delay(attempt, chance) if delay is None else delay
        assert after == Again(expected, "boom")


@pytest.mark.parametrize(
    "wrong",
    [{"max_attempts": 0}, {"base": -1}, {"cap": -0.1}, {"factor": 0.5}, {"jitter": "half"}],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetryPolicy(**wrong)


@given(chances, st.integers(0, 10_000))
def test_spread_is_a_chance(chance: float, index: int) -> None:
    assert 0 <= spread(chance, index) < 1


@given(chances, st.integers(2, 600))
def test_spread_is_even(chance: float, number: int) -> None:
    places = sorted(spread(chance, index) for index in range(number))
    gaps = [b - a for a, b in zip(places, [*places[1:], places[0] + 1], strict=True)]
    assert max(gaps) < 3 / number, "no wide gap"
    assert min(gaps) > 0.3 / number, "no two at once"


# -- tokens, keys, ids -------------------------------------------------------------------


@given(st.text(min_size=1), st.integers(0, 2**63))
def test_tokens_come_back(message_id: str, fence: int) -> None:
    assert parse_token(token_of(message_id, fence)) == (message_id, fence)


@pytest.mark.parametrize("token", ["", "17", "a.", "a.b", "a.-1", "a.1.5x", ".", "a.²"])
def test_what_is_no_token(token: str) -> None:
    with pytest.raises(ValueError, match="token"):
        parse_token(token)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 99))
def test_a_sub_requests_key_is_of_message_redrive_and_call(
    id: int, redrives: int, call: int
) -> None:
    key = sub_request_key(str(id), redrives, call)
    assert key == sub_request_key(str(id), redrives, call)
    assert key != sub_request_key(str(id), redrives + 1, call)
    assert key != sub_request_key(str(id), redrives, call + 1)
    assert key != sub_request_key(f"{id}x", redrives, call)


@given(st.uuids().map(lambda made: made.hex), st.text(min_size=1, max_size=20))
def test_a_copys_id_is_always_the_same_and_in_the_same_place(message_id: str, name: str) -> None:
    made = copy_id(message_id, name)
    assert made == copy_id(message_id, name)
    assert len(made) == 32
    assert made[:12] == message_id[:12]
    assert made != copy_id(message_id, name + "x")


def test_a_copys_id_is_whole_for_a_short_id() -> None:
    assert len(copy_id("1", "bob")) == 32


# -- what time changes -------------------------------------------------------------------


@given(
    st.sampled_from(get_args(State)), seconds, seconds, seconds, st.booleans(), st.none() | seconds
)
def test_time_only_moves_what_is_open(
    stored: State, now: float, due: float, lease_end: float, last: bool, expires: float | None
) -> None:
    seen = seen_state(stored, now, due=due, lease_end=lease_end, last=last, expires=expires)
    if stored in FINAL or (stored == "leased" and lease_end > now):
        assert seen == stored
    else:
        assert seen != "leased"
        if expires is not None and expires <= now:
            assert seen == "dead"
        elif stored == "scheduled":
            assert seen == ("pending" if due <= now else "scheduled")


def test_a_lease_that_ended_is_due_again_or_dead() -> None:
    def seen(now: float, *, last: bool) -> State:
        return seen_state("leased", now, due=15, lease_end=10, last=last, expires=None)

    assert [seen(now, last=False) for now in (9, 10, 15)] == ["leased", "scheduled", "pending"]
    assert [seen(now, last=True) for now in (9, 10)] == ["leased", "dead"]


@given(st.integers(1, 10**9))
def test_the_last_tenth_is_for_urgent_mail(capacity: int) -> None:
    assert room(capacity, urgent=True) == capacity
    assert 0 < room(capacity, urgent=False) <= capacity
    assert room(capacity, urgent=False) == capacity - capacity // 10


@pytest.mark.parametrize("reason", get_args(DeadReason))
def test_dead_letters_stay_until_discarded(reason: DeadReason) -> None:
    keep = keeping("dead", reason, 100, history=10, retention=50, keyed=False, answer=False)
    if reason == "expired":
        assert keep is not None
        assert (keep.body, keep.row) == (150, 150)
    else:
        assert keep is None


@given(st.sampled_from(["done", "cancelled"]), seconds, seconds, st.booleans(), st.booleans())
def test_bodies_stay_for_history_and_keys_for_retention(
    state: Any, history: float, retention: float, keyed: bool, answer: bool
) -> None:
    keep = keeping(state, None, 0, history=history, retention=retention, keyed=keyed, answer=answer)
    assert keep is not None
    assert keep.body == (retention if answer else history)
    assert keep.row >= keep.body
    if keyed:
        assert keep.row >= retention
