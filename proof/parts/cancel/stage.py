"""The place of one coroutine: a bus, agents, and a history of what they see."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack, suppress
from typing import Any, TypeVar

from afk.messaging import Delivery, LeaseLostError, MessageBus, Receipt, connect
from afk.messaging.testing.history import History, digest
from afk.messaging.testing.witness import Witness

T = TypeVar("T")
Call = Callable[[], Coroutine[Any, Any, Any]]
LEASE = 60.0
"""Seconds. Longer than it may take until all is worked off: nothing may wait for its end."""
AGENTS = ("ada", "bob", "end", "oracle")


class Stage:
    """Ada sends, Bob has mail, and who is asked is the oracle."""

    def __init__(self, url: str, bus: MessageBus, history: History) -> None:
        self.url = url
        self.bus = bus
        self.history = history
        self.ada = Witness(bus.mailbox("ada"), history)
        self.bob = Witness(bus.mailbox("bob"), history)
        self.hands: list[Delivery[Any]] = []
        """To be acked once the call is over, unless it has settled them."""
        self.ends: list[Callable[[], Awaitable[Any]]] = []
        """To be called then: what closes something."""
        self.tasks: list[asyncio.Task[Any]] = []
        """What goes on beside the call."""
        self._numbers = itertools.count()

    def number(self) -> int:
        """Another one each time."""
        return next(self._numbers)

    async def mail(self, box: str = "bob", **content: Any) -> Receipt[Any]:
        """A message, for Bob if nobody else is named."""
        key = f"k{self.number()}"
        return await self.ada.send(box, content.get("content", {"key": key}), key=key)

    async def held(self, **content: Any) -> Delivery[Any]:
        """A message in Bob's hands."""
        await self.mail(**content)
        delivery = await self.bob.claim(LEASE / 2, lease=LEASE)
        assert delivery is not None, "there is mail, and nobody can have it"
        self.hands.append(delivery)
        return delivery

    async def dead(self, **content: Any) -> str:
        """The id of a dead letter."""
        delivery = await self.held(**content)
        await self.bob.settle(delivery, "dead", "no")
        letter: str = delivery.message.id
        return letter

    def other(self) -> MessageBus:
        """Another bus over the same place, not yet opened."""
        bus = connect(self.url, lease=LEASE)
        self.ends.append(bus.aclose)
        return bus

    async def claimed(self, claim: Callable[[], Awaitable[Delivery[Any] | None]]) -> None:
        """What it gets is noted, and in our hands."""
        since = self.history.now()
        delivery = await claim()
        if delivery is not None:
            it = self.bob._it(delivery) | {"token": delivery.token, "lease": LEASE}
            self.history.note("claim", since=since, **it)
            self.hands.append(delivery)

    async def received(self, receive: Callable[[], Awaitable[Any]]) -> None:
        """What it gets is noted, and done."""
        since = self.history.now()
        message = await receive()
        if message is not None:
            shown = digest(message.content)
            self.history.note("claim", id=message.id, mailbox="bob", digest=shown, since=since)

    async def sent(
        self, boxes: Sequence[str], content: Any, key: str, send: Callable[[], Awaitable[Any]]
    ) -> None:
        """A message for each of the boxes, by a call of Ada's: noted as a witness does."""
        asked = {"key": key, "sender": "ada", "digest": digest(content)}
        with ExitStack() as calls:
            ends = [calls.enter_context(self._send(box, asked)) for box in boxes]
            receipts = await send()
            for end, receipt in zip(ends, receipts, strict=True):
                end.update(id=receipt.id, duplicate=receipt.duplicate)

    def _send(self, box: str, asked: dict[str, Any]) -> Any:
        return self.ada._noted("send", mailbox=box, **asked)

    async def settled(
        self, delivery: Delivery[Any], outcome: str, settle: Callable[[], Awaitable[T]]
    ) -> T:
        """A settle, by other means than a witness has."""
        it = {"id": delivery.message.id, "token": delivery.token, "outcome": outcome}
        with self.bob._noted("settle", **it):
            return await settle()

    def doubt(self, delivery: Delivery[Any], outcome: str) -> None:
        """It may be settled so, out of our sight."""
        it = {"id": delivery.message.id, "token": delivery.token, "outcome": outcome}
        call = self.history.call()
        self.history.note("settle", "invoke", call=call, **it)
        self.history.note("settle", "unknown", call=call, **it)

    def beside(self, work: Coroutine[Any, Any, Any]) -> None:
        """Have it done beside the call."""
        self.tasks.append(asyncio.create_task(work))

    async def tidy(self) -> None:
        """Settle what is held, and close what is open."""
        await asyncio.gather(*self.tasks)
        for delivery in self.hands:
            if not delivery.settled:
                with suppress(LeaseLostError):
                    await self.bob.settle(delivery, "done")
        for end in self.ends:
            await end()
        for done in (self.tasks, self.hands, self.ends):
            done.clear()
