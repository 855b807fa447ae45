"""The checker, on small histories that keep every promise: it finds nothing."""

from __future__ import annotations

import pytest

from afk.messaging.testing.history import SERVER
from afk.messaging.testing.verdict import Rules, judge

from .histories import LEASE, Story, Told, left_waiting, sent, work

RULES = Rules(max_attempts=3)


def plain(told: Told) -> None:
    sent(told, "a")
    work(told)
    told.final("a")


def unknown_and_not_there(told: Told) -> None:
    told.send("a", "unknown")
    told.send("b", None)


def unknown_and_there(told: Told) -> None:
    told.send("a", "unknown")
    work(told)
    told.final("a")


def sent_twice(told: Told) -> None:
    told.send("a", key="k")
    told.send("a", key="k", duplicate=True)
    work(told)
    told.final("a")


def tried_again(told: Told) -> None:
    sent(told, "a")
    told.settle(told.claim("a"), "again")
    work(told, attempt=2)
    told.final("a", attempt=2)


def given_back(told: Told) -> None:
    sent(told, "a")
    told.settle(told.claim("a"), "back")
    work(told, token="second")
    told.final("a")


def lease_ran_out(told: Told) -> None:
    sent(told, "a")
    late = told.claim("a")
    told.now += LEASE
    work(told, process="cat", attempt=2)
    told.settle(late, phase="fail", error="lost")
    told.final("a", attempt=2)


def lease_ran_out_soon_after_it_was_noted(told: Told) -> None:
    """It began with the claim, which was noted late."""
    sent(told, "a")
    told.now += LEASE
    told.claim("a", since=told.now - LEASE)
    work(told, process="cat", attempt=2)
    told.final("a", attempt=2)


def killed(told: Told) -> None:
    sent(told, "a")
    told.handle("a", None)
    told.note("fault", process="bob", outcome="killed")
    told.handle("a", process="cat", attempt=2)
    told.final("a", attempt=2)


def server_was_restarted(told: Told) -> None:
    sent(told, "a")
    told.handle("a")
    told.note("fault", process=SERVER, outcome="restarted")
    told.handle("a", process="cat", attempt=2)
    told.final("a", attempt=2)


def failed(told: Told) -> None:
    sent(told, "a")
    told.handle("a", "fail")
    told.handle("a", process="cat", attempt=2)
    told.final("a", attempt=2)


def redriven(told: Told) -> None:
    sent(told, "a")
    told.settle(told.claim("a"), "dead")
    told.note("redrive", id="a")
    work(told, token="redriven")
    told.final("a")


def noted_late(told: Told) -> None:
    """Bob was granted it first, and frozen before he could note that."""
    sent(told, "a")
    asked = told.now
    told.note("fault", process="bob", outcome="frozen")
    told.now += LEASE
    other = told.claim("a", "cat", attempt=2)
    told.note("fault", process="bob", outcome="thawed")
    late = told.claim("a", "bob", since=asked)
    told.settle(late, phase="fail", error="lost")
    told.settle(other)
    told.final("a", attempt=2)


def begun_late(told: Told) -> None:
    """Bob was given it first, and stood still before he could begin."""
    sent(told, "a")
    told.note("fault", process="bob", outcome="stood still")
    other = told.claim("a", "cat", attempt=2)
    told.settle(other)
    told.handle("a", process="bob", attempt=1, lease=LEASE)
    told.final("a", attempt=2)


KEPT = [
    plain,
    unknown_and_not_there,
    unknown_and_there,
    sent_twice,
    tried_again,
    given_back,
    lease_ran_out,
    lease_ran_out_soon_after_it_was_noted,
    killed,
    server_was_restarted,
    failed,
    redriven,
    noted_late,
    begun_late,
]


@pytest.mark.parametrize("story", KEPT)
def test_nothing_is_found_where_nothing_is_wrong(story: Story) -> None:
    told = Told()
    story(told)
    assert judge(told.over(), RULES).violations == []


def test_a_history_without_its_end_is_no_verdict() -> None:
    told = Told()
    plain(told)
    found = judge(told.events, RULES).violations
    assert found == ["I13 drained: the history ends before everything was worked off"]


def test_what_may_wait_may_wait() -> None:
    told = Told()
    left_waiting(told)
    assert judge(told.over(), Rules(drained=False)).violations == []


def test_a_fault_excuses_a_late_end() -> None:
    told = Told()
    told.note("send", "invoke", call=9, mailbox="m", digest="d", deadline=1.0)
    told.note("fault", process=SERVER, outcome="paused")
    told.now += 3
    told.note("send", "unknown", call=9)
    assert judge(told.over(), RULES).violations == []


def test_the_counts_say_what_there_was_to_judge() -> None:
    told = Told()
    tried_again(told)
    told.send("b", "unknown")
    told.note("fault", process=SERVER, outcome="paused")
    assert judge(told.over(), RULES).counts == {
        "sends": 2,
        "accepted": 1,
        "unknown": 1,
        "deliveries": 2,
        "repeats": 1,
        "effects": 0,
        "faults": 1,
        "done": 1,
    }
