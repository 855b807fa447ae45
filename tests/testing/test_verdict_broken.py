"""The checker, on small histories that break a promise each: found, by the right invariant."""

from __future__ import annotations

import pytest

from afk.messaging.testing.verdict import INVARIANTS, Rules, judge

from .histories import LEASE, Story, Told, left_waiting, sent, work

RULES = Rules(max_attempts=3)
TRANSACTIONS = Rules(transactions=True)
ORDERED = Rules(ordered=True)


def lost(told: Told) -> None:
    sent(told, "a")


def invented(told: Told) -> None:
    told.send("a", "unknown", digest="other")
    told.final("a")


def came_though_refused(told: Told) -> None:
    told.send("a", "fail", digest="refused")
    told.send("b", "unknown")
    work(told, name="a", digest="refused")


def changed_on_the_way(told: Told) -> None:
    sent(told, "a")
    told.send("b", digest="other")
    work(told, digest="other")
    told.final("a")
    told.final("b", digest="other")


def key_twice(told: Told) -> None:
    told.send("a", key="k")
    told.send("b", key="k", duplicate=True)
    told.final("a")
    told.final("b")


def key_with_two_contents(told: Told) -> None:
    told.send("a", key="k")
    told.send("a", key="k", digest="other", duplicate=True)
    told.final("a")


def key_new_twice(told: Told) -> None:
    told.send("a", key="k")
    told.send("a", key="k")
    told.final("a")


def key_is_there_twice(told: Told) -> None:
    told.send("a", key="k")
    told.send("a", "unknown", key="k")
    told.final("a", key="k", sender="ann")
    told.final("b", key="k", sender="ann")


def two_effects(told: Told) -> None:
    no_effect(told)
    told.note("effect", id="a")
    told.note("effect", id="a")


def no_effect(told: Told) -> None:
    sent(told, "a")
    work(told)
    told.final("a")


def effect_of_the_dead(told: Told) -> None:
    sent(told, "a")
    told.note("effect", id="a")
    told.final("a", "dead", "rejected")


def handled_twice(told: Told) -> None:
    sent(told, "a")
    told.handle("a")
    told.handle("a", process="cat", attempt=2)
    told.final("a", attempt=2)


def received_twice(told: Told) -> None:
    sent(told, "a")
    told.claim("a", attempt=0, token="", lease=0.0)
    told.claim("a", "cat", attempt=0, token="", lease=0.0)
    told.final("a", attempt=2)


def two_holders(told: Told) -> None:
    sent(told, "a")
    first = told.claim("a", lease=0.0)
    work(told, process="cat", attempt=2)
    told.settle(first, phase="fail", error="lost")
    told.final("a", attempt=2)


def inside_the_lease(told: Told) -> None:
    """The holder's process was killed: that explains the repeat, but not so soon."""
    sent(told, "a")
    told.claim("a")
    told.note("fault", process="bob", outcome="killed")
    work(told, process="cat", attempt=2)
    told.final("a", attempt=2)


def refused_settle_lets_go(told: Told) -> None:
    sent(told, "a")
    first = told.claim("a")
    told.note("fault", process="bob", outcome="frozen")
    told.settle(first, "again", "fail", error="lost")
    work(told, process="cat", attempt=2)
    told.final("a", attempt=2)


def stale_settle(told: Told) -> None:
    sent(told, "a")
    late = told.claim("a")
    told.now += LEASE
    told.claim("a", "cat", attempt=2)
    told.settle(late, "again")
    told.final("a", "dead", "rejected", attempt=2)


def settled_twice(told: Told) -> None:
    sent(told, "a")
    turn = told.claim("a")
    told.settle(turn)
    told.settle(turn)
    told.final("a")


def attempt_not_counted(told: Told) -> None:
    sent(told, "a")
    told.settle(told.claim("a"), "again")
    work(told, token="second")
    told.final("a")


def attempt_left_out(told: Told) -> None:
    sent(told, "a")
    told.settle(told.claim("a"), "again")
    work(told, attempt=3)
    told.final("a", attempt=3)


def one_attempt_too_many(told: Told) -> None:
    sent(told, "a")
    for attempt in (1, 2, 3):
        told.settle(told.claim("a", attempt=attempt), "again")
    work(told, attempt=4)
    told.final("a", attempt=4)


def exhausted_too_soon(told: Told) -> None:
    sent(told, "a")
    told.settle(told.claim("a"), "again")
    told.final("a", "dead", "exhausted", attempt=1)


def no_reason(told: Told) -> None:
    sent(told, "a")
    told.final("a", "dead")


def acked_and_dead(told: Told) -> None:
    sent(told, "a")
    work(told)
    told.final("a", "dead", "expired")


def rejected_and_done(told: Told) -> None:
    sent(told, "a")
    told.settle(told.claim("a"), "dead")
    told.final("a")


def out_of_order(told: Told) -> None:
    sent(told, "a", "b", "c")
    for name in "bca":
        work(told, name)
    for name in "abc":
        told.final(name)


def handled_out_of_order(told: Told) -> None:
    sent(told, "a", "b")
    for name in "ba":
        told.handle(name)
        told.final(name)


def one_too_many(told: Told) -> None:
    sent(told, "a")
    told.final("a")
    told.final("b")


def there_twice(told: Told) -> None:
    sent(told, "a")
    told.final("a")
    told.final("a")


def delivered_after_its_end(told: Told) -> None:
    sent(told, "a")
    work(told)
    told.note("fault", process="bob", outcome="killed")
    told.now += LEASE
    told.claim("a", "cat", attempt=2)
    told.final("a", attempt=2)


def delivered_after_its_cancel(told: Told) -> None:
    sent(told, "a")
    told.note("cancel", id="a")
    told.claim("a")
    told.final("a", "cancelled")


def redriven_though_done(told: Told) -> None:
    sent(told, "a")
    work(told)
    told.note("fault", process="bob", outcome="killed")
    told.note("redrive", id="a")
    told.now += LEASE
    work(told, process="cat", token="redriven")
    told.final("a")


def waited_for_after_its_end(told: Told) -> None:
    """Who got it had asked before the end: only the attempt tells that it was granted after it."""
    sent(told, "a")
    asked = told.now
    work(told)
    told.note("fault", process="bob", outcome="killed")
    told.now += LEASE
    told.claim("a", "cat", attempt=2, since=asked)
    told.final("a", attempt=2)


def too_late(told: Told) -> None:
    told.note("send", "invoke", call=9, mailbox="m", digest="d", deadline=1.0)
    told.now += 3
    told.note("send", "unknown", call=9)


def never_over(told: Told) -> None:
    told.note("send", "invoke", call=9, mailbox="m", digest="d", deadline=1.0)
    told.now += 3


BROKEN: list[tuple[str, Rules, Story]] = [
    ("I1 lost", RULES, lost),
    ("I1 lost", RULES, left_waiting),
    ("I2 invented", RULES, invented),
    ("I2 invented", RULES, came_though_refused),
    ("I2 invented", RULES, changed_on_the_way),
    ("I3 key", RULES, key_twice),
    ("I3 key", RULES, key_with_two_contents),
    ("I3 key", RULES, key_new_twice),
    ("I3 key", RULES, key_is_there_twice),
    ("I4 effect", TRANSACTIONS, two_effects),
    ("I4 effect", TRANSACTIONS, no_effect),
    ("I4 effect", TRANSACTIONS, effect_of_the_dead),
    ("I4 repeat", RULES, handled_twice),
    ("I4 repeat", RULES, received_twice),
    ("I4 repeat", RULES, two_holders),
    ("I5 lease", RULES, inside_the_lease),
    ("I5 lease", RULES, refused_settle_lets_go),
    ("I6 fence", RULES, stale_settle),
    ("I6 fence", RULES, settled_twice),
    ("I7 attempts", RULES, attempt_not_counted),
    ("I7 attempts", RULES, attempt_left_out),
    ("I7 attempts", RULES, one_attempt_too_many),
    ("I7 attempts", RULES, exhausted_too_soon),
    ("I8 dead", RULES, no_reason),
    ("I8 dead", RULES, acked_and_dead),
    ("I8 dead", RULES, rejected_and_done),
    ("I9 order", ORDERED, out_of_order),
    ("I9 order", ORDERED, handled_out_of_order),
    ("I10 sums", RULES, one_too_many),
    ("I10 sums", RULES, there_twice),
    ("I11 final", RULES, delivered_after_its_end),
    ("I11 final", RULES, delivered_after_its_cancel),
    ("I11 final", RULES, redriven_though_done),
    ("I11 final", RULES, waited_for_after_its_end),
    ("I15 deadline", RULES, too_late),
    ("I15 deadline", RULES, never_over),
]


@pytest.mark.parametrize(
    ("name", "rules", "story"), BROKEN, ids=[story.__name__ for _, _, story in BROKEN]
)
def test_what_is_broken_is_found(name: str, rules: Rules, story: Story) -> None:
    told = Told()
    story(told)
    found = {sentence.split(":")[0] for sentence in judge(told.over(), rules).violations}
    assert found == {name}


def test_every_invariant_is_broken_here() -> None:
    assert {name for name, _, _ in BROKEN} == INVARIANTS.keys() - {"I13 drained"}
