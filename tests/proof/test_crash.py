from proof.parts.crash import SMALL

from .small import place, small

__all__ = ["place"]

test_nothing_breaks = small(SMALL)
