"""What a store's author tells the suite about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ..bus import MessageBus
from ..store import A2ADeliveryStore, Capabilities


class Subject(ABC):
    """One empty place for messages, and how to reach it. Made anew for each check.

    folder: an empty directory of this check's own.
    """

    capabilities: Capabilities
    """What the store claims; the suite checks that the claim is honest."""

    url: str | None = None
    """The URL another process reaches the same place by; None if none can."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def store(self, clock: Callable[[], float] | None = None) -> A2ADeliveryStore:
        """A store over this place. With a clock, it must judge time by that clock alone.

        Two calls give two views of the same place: two stores as two processes would have
        them, or the same object if the place is that object.
        """

    def bus(self, clock: Callable[[], float] | None = None, **options: Any) -> MessageBus:
        """A bus over this place."""
        return MessageBus(self.store(clock), **options)


Check = Callable[[Subject], Awaitable[None]]
"""A check: returns if the promise held, raises AssertionError if not."""
