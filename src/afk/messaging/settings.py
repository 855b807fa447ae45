"""What a bus is set to. Durations in seconds, sizes in bytes."""

from __future__ import annotations

import math

from msgspec import Struct

from .errors import ConfigurationError
from .lifecycle import RetryPolicy


class Settings(Struct, frozen=True, kw_only=True):
    """The options every store shares; `docs/reference/options.md` explains each."""

    retry: RetryPolicy = RetryPolicy()
    lease: float = 30.0
    retention: float = 86_400.0
    history: float = 3_600.0
    history_max: int = 100_000
    capacity: int = 100_000
    max_bytes: int = 1_048_576
    max_hops: int = 100

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            check_number(name, getattr(self, name), least)
        if not isinstance(self.retry, RetryPolicy):
            raise ConfigurationError(f"retry: a RetryPolicy is needed, not {self.retry!r}")


def check_number(name: str, value: object, least: float) -> None:
    """ConfigurationError if it is no number, or below the least."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigurationError(f"{name}: a number is needed, not {value!r}")
    if not math.isfinite(value):
        raise ConfigurationError(f"{name}: {value!r} is not finite")
    if value < least:
        raise ConfigurationError(f"{name}: {value!r} is below {least}")


LEAST_SECONDS = 0.001
"""A lease or a time-out, at least."""
_LEAST = {
    "lease": LEAST_SECONDS,
    "retention": 0,
    "history": 0,
    "history_max": 0,
    "capacity": 1,
    "max_bytes": 256,
    "max_hops": 1,
}
