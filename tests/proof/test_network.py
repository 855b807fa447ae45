"""A bad network, in its small size."""

from proof.parts.network import SMALL

from .small import place, small

__all__ = ["place"]

test_nothing_breaks = small(SMALL)
