from proof.parts.model import PART
from proof.parts.model.lifecycle import REACHABLE

from .small import place, small

__all__ = ["place"]

test_nothing_breaks = small(PART)


def test_what_is_final_stays() -> None:
    assert REACHABLE.get("done", set()) == REACHABLE.get("cancelled", set()) == set()
    assert REACHABLE["dead"] == {*REACHABLE["pending"], "pending"}
