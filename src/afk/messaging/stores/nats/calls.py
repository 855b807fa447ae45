"""What is on its way to the log."""

from __future__ import annotations

import asyncio
from typing import Any

from ...errors import MessagingError
from ...records import wire
from .replica import Step
from .steps import Op, Put


class Call:
    """Operations, and who waits for their answers."""

    __slots__ = ("future", "ops", "since")

    def __init__(
        self, ops: tuple[Op, ...], future: asyncio.Future[list[Any]], since: float
    ) -> None:
        self.ops = ops
        self.future = future
        self.since = since

    def land(self, answers: list[Any]) -> None:
        """Pass the answers on; an error among them is raised."""
        if self.future.done():
            return
        for each in answers:
            if isinstance(each, BaseException):
                self.future.set_exception(each)
                return
        self.future.set_result(answers)

    def size(self) -> int:
        """The bytes of its bodies."""
        size = 0
        for op in self.ops:
            if type(op) is Put:
                for send in op.turn.sends:
                    size += len(wire(send.body))
        return size

    def fail(self, error: MessagingError) -> None:
        """There will be no answer."""
        if not self.future.done():
            self.future.set_exception(error)


class Flight:
    """A group under way. unstored: the parts the server has not answered for; sent: how often."""

    def __init__(self, number: int, calls: list[Call], messages: list[bytes]) -> None:
        self.number = number
        self.calls = calls
        self.ops = tuple([op for call in calls for op in call.ops])
        self.messages = messages
        self.unstored = set(range(len(messages)))
        self.sent = 0
        self.step: Step | None = None
