"""What a server's refusal or a lost connection means for who asked."""

from __future__ import annotations

import re
from typing import Final

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)

from ...errors import StoreError

_CODES: Final[tuple[tuple[type[RedisError], str], ...]] = (
    (MovedError, "MOVED"),  # before its base
    (AskError, "ASK"),
    (TryAgainError, "TRYAGAIN"),
    (ClusterDownError, "CLUSTERDOWN"),
    (MasterDownError, "MASTERDOWN"),
    (BusyLoadingError, "LOADING"),
    (NoScriptError, "NOSCRIPT"),
    (ReadOnlyError, "READONLY"),
    (OutOfMemoryError, "OOM"),
    (AuthenticationError, "NOAUTH"),
    (NoPermissionError, "NOPERM"),
)

PASSING: Final = {
    "MOVED": "the slot is served by another node",
    "ASK": "the slot is being moved to another node",
    "TRYAGAIN": "the slot is being moved to another node",
    "CLUSTERDOWN": "the cluster is down",
    "MASTERDOWN": "the server is a replica without its primary",
    "LOADING": "the server is loading its data",
    "NOSCRIPT": "the server has forgotten the scripts",
    "READONLY": "the server is a read-only replica",
    "BUSY": "the server is busy with a script",
    "NOREPLICAS": "the server has too few replicas to write",
}
"""Refusals that pass: nothing was done, and it is asked again, of a new connection."""

_INSIDE = re.compile(r"-(MOVED|ASK|TRYAGAIN|CLUSTERDOWN|READONLY|NOREPLICAS|OOM|NOPERM) ")
"""How older servers word a refusal to a script's call."""


def code_of(error: BaseException) -> str:
    """The word that a server's refusal starts with; '' for anything else."""
    if not isinstance(error, RedisError):
        return ""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    text = str(error)
    inside = _INSIDE.search(text)
    if inside:
        return inside[1]
    if "non local key" in text:  # of a script's call, while a slot is being moved
        return "ASK"
    return text.partition(" ")[0]


def moved_to(error: BaseException) -> tuple[str, int] | None:
    """The node a MOVED names; None if it names none."""
    found = re.search(r"(\d+) (\S+):(\d+)", str(error))
    return (found[2], int(found[3])) if found else None


def refusal(shown: str, error: RedisError) -> StoreError:
    """What a refusal that does not pass is to the caller."""
    code = code_of(error)
    if code == "OOM":
        return StoreError(f"{shown} is out of memory; nothing was stored")
    if code == "AFKRESET":
        return StoreError(
            f"{shown} has lost this namespace: it was emptied, or is another server than before;"
            " nothing was stored. Restart what uses it, so that its mailboxes are registered again"
        )
    return StoreError(f"{shown} refused: {error}")
