from proof.parts.cancel import PART

from .small import place, small

__all__ = ["place"]

test_nothing_breaks = small(PART)
