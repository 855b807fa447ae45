"""The way of the thread that renews leases: a link of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...lifecycle import parse_token
from .calls import Args
from .codec import ms
from .link import Link


class Renewal:
    """made: makes the link, inside the thread. call: the arguments of a script."""

    def __init__(self, made: Callable[[], Link], call: Callable[..., Args]) -> None:
        self._link = made()
        self._call = call

    async def open(self) -> None:
        """Connect."""
        await self._link.open()

    async def renew(self, due: list[tuple[str, float]]) -> list[str]:
        """The tokens that are not held any more."""
        args: list[Any] = []
        for token, seconds in due:
            message_id, fence = parse_token(token)
            args += (message_id, fence, ms(seconds))
        _, _, lost = await self._link.ask(self._call("renew", *args), repeatable=True)
        return [due[place][0] for place in lost]

    async def close(self) -> None:
        """Let go of the connection."""
        await self._link.close()
