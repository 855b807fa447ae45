"""The leases a process has promised to renew, for one thread alone."""

from __future__ import annotations

import time
from collections.abc import Iterable

from msgspec import Struct


class Hold(Struct):
    """Renew to `lease` s at a time, until `until` (monotonic); next at `at`."""

    lease: float
    until: float
    at: float


class Holdings:
    """Held leases by token. Renewed at a third of their length, whatever the event loop does."""

    def __init__(self) -> None:
        self._holds: dict[str, Hold] = {}
        self._next = float("inf")

    def __contains__(self, token: object) -> bool:
        return token in self._holds

    def apply(self, held: Iterable[tuple[str, float, float]], released: Iterable[str]) -> None:
        """What a committed step took on (token, lease, seconds in all) and let go of."""
        now = time.monotonic()
        for token in released:
            self._holds.pop(token, None)
        for token, lease, seconds in held:
            at = now + lease / 3
            self._holds[token] = Hold(lease, now + seconds, at)
            self._next = min(self._next, at)

    def drop(self, token: str) -> None:
        """Renew it no more."""
        self._holds.pop(token, None)

    def put_off(self, tokens: Iterable[str], seconds: float) -> None:
        """A renewal failed: it is due again in so many seconds."""
        at = time.monotonic() + seconds
        for token in tokens:
            if token in self._holds:
                self._holds[token].at = at
                self._next = min(self._next, at)

    def wait(self) -> float | None:
        """Seconds until something is to be renewed; None if nothing is held."""
        if not self._holds:
            self._next = float("inf")
            return None
        return max(0.0, self._next - time.monotonic())

    def due(self) -> list[tuple[str, float]]:
        """What is to be renewed now: (token, seconds). The time-out of a hold ends it."""
        now = time.monotonic()
        if now < self._next:
            return []
        renewals = []
        self._next = float("inf")
        for token, hold in list(self._holds.items()):
            if hold.until <= now:
                del self._holds[token]
                continue
            if hold.at <= now:
                renewals.append((token, min(hold.lease, hold.until - now)))
                hold.at = now + hold.lease / 3
            self._next = min(self._next, hold.at)
        return renewals
