"""The way of the thread that renews leases: it writes to the log, and reads nothing."""

from __future__ import annotations

import secrets

from nats.aio.client import Client

from ...errors import StoreError
from ...lifecycle import Extend
from ...store import Turn
from . import steps, stream
from .place import Place
from .replica import Step
from .steps import Put
from .stream import Names, RefusedError

UNDER_WAY = 64
"""Renewals that the log may bring back later, at most: a blocked process reads it late."""


class Renewal:
    """A writer of its own in the log. opened again after a failure, it goes on counting."""

    def __init__(self, place: Place, names: Names) -> None:
        self.writer = secrets.token_hex(8)
        self._place = place
        self._names = names
        self._number = 0
        self._asked: dict[int, list[str]] = {}
        self._client: Client

    async def open(self) -> None:
        """Connect."""
        self._client = await self._place.connect("afk.messaging leases")

    async def renew(self, due: list[tuple[str, float]]) -> list[str]:
        """Store the renewals; which of them came too late, the log tells the process."""
        if not self._client.is_connected:
            await self.close()
            await self.open()
        ops = tuple([Put(Turn(token=token, outcome=Extend(seconds))) for token, seconds in due])
        self._number += 1
        self._asked[self._number] = [token for token, _ in due]
        self._asked.pop(self._number - UNDER_WAY, None)
        data = steps.packed(ops)
        try:
            for message in steps.parts(
                self.writer, self._number, None, data, self._client.max_payload
            ):
                await stream.publish(self._client, self._names.steps, message)
        except RefusedError:
            raise
        except StoreError:
            await self.close()  # a connection that is silent is soon another: a lease does not wait
            raise
        return []

    def lost(self, step: Step) -> list[str]:
        """The tokens that a group of this writer could not renew. Called in the other thread."""
        asked = self._asked.pop(step.number, [])
        return [
            token
            for token, verdict in zip(asked, step.answers, strict=False)
            if verdict.refusal is not None
        ]

    async def close(self) -> None:
        """Let go of the connection."""
        await self._place.leave(self._client)
