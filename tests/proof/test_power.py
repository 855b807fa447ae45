"""Power loss, in its small size."""

from proof.parts.power import PART

from .small import place, small

__all__ = ["place"]

test_nothing_breaks = small(PART)
