"""Many processes on one file, in a small size."""

from proof.parts.contention import PART

from .small import place, small

__all__ = ["place"]

test_nothing_breaks = small(PART)
