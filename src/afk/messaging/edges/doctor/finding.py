"""What was found, and its fix."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Level = Literal["ok", "warning", "bad"]


class Finding(Struct, frozen=True):
    """One thing. fix: what to do about it; empty if there is nothing to do."""

    level: Level
    what: str
    fix: str = ""


def good(what: str) -> Finding:
    """As it should be."""
    return Finding("ok", what)


def warning(what: str, fix: str) -> Finding:
    """It may be meant, and may do harm."""
    return Finding("warning", what, fix)


def bad(what: str, fix: str) -> Finding:
    """It does harm."""
    return Finding("bad", what, fix)


def clock(skew: float) -> Finding:
    """skew: seconds by which the server's clock is ahead of this machine's."""
    if abs(skew) < 1.0:
        return good(f"the server's clock is this machine's ({skew:+.2f} s)")
    return warning(
        f"the server's clock is {skew:+.1f} s from this machine's",
        "leases go by the server's, so nothing breaks; times in traces differ. Run NTP on both",
    )
