"""The parts of the proof in their small size."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from proof.ground import ground
from proof.trial import Ground, Part, Trial


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest) -> Iterator[Ground]:
    """A store of the module's own: its server may be killed."""
    with ground(request.param) as found:
        yield found


def small(part: Part, seconds: int = 170) -> Any:
    """The test that a part finds nothing; a control, that it does. seconds: for one trial."""
    cases = [
        pytest.param(store, trial, id=f"{store}-{trial.what}")
        for store in ("memory", "sqlite", "redis", "postgres", "nats")
        for trial in part.trials
        if store in trial.stores and trial.small
    ]

    @pytest.mark.timeout(seconds)
    @pytest.mark.parametrize(("place", "trial"), cases, indirect=["place"])
    async def test_nothing_breaks(place: Ground, trial: Trial) -> None:
        if lacks := trial.needs():
            pytest.skip(lacks)
        seed = random.randrange(10**6)
        outcome = await trial.run(place, trial.small, seed)
        assert outcome.rounds == trial.small
        found = "\n".join(outcome.violations[:20])
        assert bool(found) == trial.expect_failures, f"seed {seed}:\n{found}"

    return test_nothing_breaks
