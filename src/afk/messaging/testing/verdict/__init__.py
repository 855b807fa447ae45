"""Whether a history keeps the promises. It knows events, and nothing of the library.

Every function takes the whole history of one place and yields a sentence for each violation. A
history is judged once all faults are over, everyone has stopped, and the place was drained: that
nothing is lost can only be said of what had its time to arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ..history import Event
from . import ending, holding, sending
from .parts import Parts as Parts
from .parts import Rules as Rules
from .parts import at

PLAIN = Rules()


@dataclass(frozen=True)
class Verdict:
    """What was found: a sentence for each violation, and how much there was to judge."""

    violations: list[str]
    counts: dict[str, int]


def judge(events: Iterable[Event], rules: Rules = PLAIN) -> Verdict:
    """Judge a history by every invariant."""
    history = Parts(sorted(events, key=at))
    found = [
        f"{name}: {sentence}"
        for name, check in INVARIANTS.items()
        for sentence in check(history, rules)
    ]
    return Verdict(found, history.counts())


Invariant = Callable[[Parts, Rules], Iterator[str]]
INVARIANTS: dict[str, Invariant] = {
    "I1 lost": sending.nothing_is_lost,
    "I2 invented": sending.nothing_is_invented,
    "I3 key": sending.a_key_is_one_message,
    "I4 effect": holding.effects_happen_once,
    "I4 repeat": holding.repeats_are_explained,
    "I5 lease": holding.one_lease_at_a_time,
    "I6 fence": holding.a_stale_settle_fails,
    "I7 attempts": holding.attempts_are_counted,
    "I8 dead": ending.the_dead_have_a_reason,
    "I9 order": ending.order_is_kept,
    "I10 sums": sending.the_sums_are_right,
    "I11 final": ending.the_end_is_final,
    "I13 drained": ending.the_place_was_drained,
    "I15 deadline": ending.calls_end_in_time,
}
