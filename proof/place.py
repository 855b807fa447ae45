"""Where the processes of a trial work."""

from __future__ import annotations

from collections.abc import Callable

from afk.messaging.store import A2ADeliveryStore, Capabilities
from afk.messaging.testing import Subject


class Place(Subject):
    """Where they work; it is only ever reached by its URL."""

    capabilities = Capabilities(durability="disk", shared=True)
    url: str

    def __init__(self, url: str) -> None:
        self.url = url

    def store(self, clock: Callable[[], float] | None = None) -> A2ADeliveryStore:
        """Nobody asks for it."""
        raise NotImplementedError
