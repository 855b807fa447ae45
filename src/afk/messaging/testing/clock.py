"""A clock that tests turn by hand."""

from __future__ import annotations


class FakeClock:
    """Seconds since the epoch, as a store asks for them; stands still between `advance`s."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self.now = start

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
