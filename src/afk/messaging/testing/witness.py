"""Notes what one user of a mailbox sees, in the words of `history`. It calls what users call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..bus import MessageBus
from ..delivery import Delivery
from ..errors import LeaseLostError, StoreError
from ..mailbox import AgentMailbox
from ..messages import PRIORITIES, AgentMessage
from ..receipts import Receipt
from .history import History, Kind, digest

PAGE = 1000


class Witness:
    """A mailbox, used before witnesses: each call is noted as it begins and as it ends."""

    def __init__(self, mailbox: AgentMailbox, history: History) -> None:
        self.mailbox = mailbox
        self.history = history

    async def send(
        self, recipient: str, content: Any, *, key: str = "", **fields: Any
    ) -> Receipt[AgentMessage]:
        """`mailbox.send`; what it raises is noted, and raised."""
        asked = {
            "key": key,
            "sender": self.mailbox.name,
            "mailbox": recipient,
            "digest": digest(content),
            "rank": PRIORITIES.index(fields.get("priority", "normal")),
        }
        with self._noted("send", **asked) as end:
            receipt = await self.mailbox.send(
                recipient, content, idempotency_key=key or None, **fields
            )
            end.update(id=receipt.id, duplicate=receipt.duplicate)
        return receipt

    async def claim(
        self, timeout: float | None = None, *, lease: float
    ) -> Delivery[AgentMessage] | None:
        """`mailbox.claim`."""
        since = self.history.now()
        delivery = await self.mailbox.claim(timeout, lease=lease)
        if delivery is not None:
            self.history.note(
                "claim", since=since, lease=lease, token=delivery.token, **self._it(delivery)
            )
        return delivery

    async def settle(self, delivery: Delivery[AgentMessage], outcome: str, *args: Any) -> None:
        """done, again, dead, back or extend; what it raises is noted, and raised."""
        verbs: dict[str, Callable[..., Awaitable[None]]] = {
            "done": delivery.ack,
            "again": delivery.nack,
            "dead": delivery.reject,
            "back": delivery.give_back,
            "extend": delivery.extend,
        }
        asked = {"id": delivery.message.id, "token": delivery.token, "outcome": outcome}
        with self._noted("settle", **asked):
            await verbs[outcome](*args)

    def handler(
        self, work: Callable[[Delivery[AgentMessage]], Awaitable[Any]], *, lease: float = 0.0
    ) -> Callable[[Delivery[AgentMessage]], Awaitable[Any]]:
        """The same for `mailbox.serve`, with its beginning and its end noted.

        lease: what went wrong so many seconds before it began may explain that it comes again.
        """

        async def noted(delivery: Delivery[AgentMessage]) -> Any:
            with self._noted("handle", lease=lease, **self._it(delivery)):
                return await work(delivery)

        return noted

    async def onward(
        self, delivery: Delivery[AgentMessage], recipient: str, content: Any
    ) -> AgentMessage:
        """`delivery.send`: it may leave with the ack, which its sender does not see."""
        message = await delivery.send(recipient, content)
        asked = {"sender": self.mailbox.name, "mailbox": recipient, "digest": digest(content)}
        call = self.history.call()
        self.history.note("send", "invoke", call=call, **asked)
        self.history.note("send", "unknown", call=call, id=message.id, **asked)
        return message

    def _it(self, delivery: Delivery[AgentMessage]) -> dict[str, Any]:
        return {
            "id": delivery.message.id,
            "mailbox": self.mailbox.name,
            "digest": digest(delivery.message.content),
            "attempt": delivery.attempt,
        }

    @contextmanager
    def _noted(self, kind: Kind, **asked: Any) -> Iterator[dict[str, Any]]:
        """A call: how it is asked for, then how it ends, with what the block adds to that."""
        call, end = self.history.call(), dict(asked)
        self.history.note(kind, "invoke", call=call, **asked)
        try:
            yield end
        except (StoreError, asyncio.CancelledError) as error:
            self.history.note(kind, "unknown", call=call, **end, error=repr(error))
            raise
        except Exception as error:
            lost = isinstance(error, LeaseLostError)
            said = "lost" if lost else repr(error)
            self.history.note(kind, "fail", call=call, **end, error=said)
            raise
        self.history.note(kind, "ok", call=call, **end)


async def note_the_end(bus: MessageBus, history: History, last_fault: float) -> None:
    """Note every message as the store has it, once everyone has stopped.

    last_fault: when, by `time.monotonic`, the last fault was over.
    """
    reasons = {letter.id: letter.reason async for letter in _pages(bus.dead_letters)}
    async for entry in _pages(bus.messages):
        message = entry.message
        history.note(
            "final",
            id=entry.id,
            mailbox=entry.agent,
            sender=message.sender if message else "",
            digest=digest(message.content if message else None),
            attempt=entry.attempts,
            outcome=entry.state,
            error=reasons.get(entry.id, ""),
        )
    history.note("drained", since=last_fault)


async def _pages(view: Callable[..., Awaitable[list[Any]]]) -> AsyncIterator[Any]:
    """All there is in a view that is read by cursor."""
    after: str | None = None
    while page := await view(after=after, limit=PAGE):
        for each in page:
            yield each
        after = page[-1].cursor
