"""A history in memory, on the clock of the simulation."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec

from afk.messaging.testing.history import Event, History, Kind, Phase


class Notes(History):
    """What one process saw, added to the events of all; nothing once its process is gone."""

    def __init__(self, name: str, events: list[Event]) -> None:
        self.name = name
        self.gone = False
        self._events = events
        self._calls = itertools.count(1)
        self.now = asyncio.get_running_loop().time  # type: ignore[method-assign]

    def note(self, kind: Kind, phase: Phase = "ok", **fields: Any) -> None:
        """Keep an event."""
        if not self.gone:
            said = {"process": self.name} | fields
            self._events.append(Event(kind=kind, phase=phase, at=self.now(), **said))

    def close(self) -> None:
        """Nothing to close."""


def lines(events: list[Event]) -> bytes:
    """The events as lines of JSON."""
    return b"".join(msgspec.json.encode(event) + b"\n" for event in events)
