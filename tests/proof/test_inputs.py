from proof.parts.inputs import PART

from .small import place, small

__all__ = ["place"]

test_nothing_breaks = small(PART)
