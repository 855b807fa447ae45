"""What a store on a server is asked to be, checked before anything is connected to."""

from __future__ import annotations

import math
from typing import Final

from ..errors import ConfigurationError
from ..messages import check_name
from ..store import Durability

STRENGTH: Final[tuple[Durability, ...]] = ("memory", "process", "disk")
"""What an accepted message can survive, the least first."""


def check_terms(namespace: str, durability: Durability | None, patience: float) -> None:
    """ConfigurationError naming the term that cannot be. patience: in seconds."""
    check_namespace(namespace)
    if not (math.isfinite(patience) and patience > 0):
        raise ConfigurationError(f"patience: {patience!r} is not above 0 s")
    if durability is not None and durability not in STRENGTH:
        raise ConfigurationError(f"durability: {durability!r} is not one of {', '.join(STRENGTH)}")


def check_namespace(namespace: str) -> None:
    """ConfigurationError unless it is a name."""
    try:
        check_name(namespace, "namespace")
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
