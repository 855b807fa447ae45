"""Seeded mistakes in the library: the checks that guard the promises must find each of them."""

from __future__ import annotations

from ...trial import Part, Trial
from .seeded import MUTANTS
from .trials import caught


def _number(store: str) -> int:
    return sum(mutant.store == store for mutant in MUTANTS)


STORES = ("memory", "sqlite", "redis", "postgres", "nats")

PART = Part(
    name="mutants",
    title="Seeded mistakes",
    about="""\
The tests are tested: a copy of the library gets one mistake that someone could make, such as an
acknowledgement before the work, a token that is not compared, or a dedupe that looks and then
inserts. The checks of the store contract that guard that promise (or, for a few, a test of the
store) run on the copy and have to fail; a sent message has to arrive with it all the same, or
anything would have noticed. The same checks have to pass on a copy without a mistake. A mistake
that no check finds is a failure, and so is one whose place in the library is not found any more.

A round is a mistake. It says that the checks see these, not that they see all.""",
    trials=(
        Trial(
            "mistakes are caught",
            caught,
            small=1,
            large={store: _number(store) for store in STORES},
            batch=len(MUTANTS),
            stores=STORES,
        ),
    ),
)
