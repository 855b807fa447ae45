"""A process of the story: a bus of its own, tasks that end with it, and what it saw."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from contextvars import ContextVar, copy_context
from typing import Any

from afk.messaging import MessageBus
from afk.messaging.testing.history import Event
from afk.messaging.testing.simulation import SimulatedTask
from afk.messaging.testing.witness import Witness

from .link import Link
from .notes import Notes
from .server import Server

here: ContextVar[str] = ContextVar("simulated_process", default="")
"""The process whose task this is."""


class Host:
    """A process. `end` ends it as kill -9 does: from then on it has no effect on anyone."""

    def __init__(
        self,
        name: str,
        server: Server,
        events: list[Event],
        chance: random.Random,
        options: dict[str, Any],
    ) -> None:
        self.name = name
        self.notes = Notes(name, events)
        self.link = Link(server, self.notes, chance)
        self.bus = MessageBus(self.link, **options)
        self._context = copy_context()
        self._context.run(here.set, name)

    @property
    def gone(self) -> bool:
        """Whether it was killed."""
        return self.link.gone

    def witness(self, agent: str) -> Witness:
        """The agent's mailbox, as used by this process."""
        return Witness(self.bus.mailbox(agent), self.notes)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of this process."""
        return asyncio.get_running_loop().create_task(work, context=self._context.copy())

    def kill(self) -> None:
        """Cut it off. Its tasks are still to be ended, but nobody will know."""
        self.link.cut()
        self.notes.gone = True
        for task in self._tasks():
            task.cancel()

    def _tasks(self) -> list[SimulatedTask[Any]]:
        """Those that were started in it, whoever started them, in that order."""
        found = [
            task
            for task in asyncio.all_tasks()
            if isinstance(task, SimulatedTask) and task.context.get(here) == self.name
        ]
        return sorted(found, key=lambda task: task.number)
