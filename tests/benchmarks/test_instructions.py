"""The hot paths of the memory store take no more instructions than they did."""

from __future__ import annotations

import pytest

from benchmarks import instructions


@pytest.mark.timeout(170)
def test_the_hot_paths_take_what_they_took() -> None:
    before = instructions.kept()
    if before is None:
        pytest.skip("no figures are kept for this version of Python")
    different = instructions.changes(instructions.figures(), before)
    assert not different, f"{different}; if it is meant: python -m benchmarks.instructions --keep"


def test_growth_and_shrinking_are_told() -> None:
    more = 1 + instructions.TOLERANCE * 1.1
    assert instructions.changes({"send": 1.0}, {"send": 1.01}) == []
    assert instructions.changes({"send": more}, {"send": 1.0})
    assert instructions.changes({"send": 1.0}, {"send": more})
