"""Who works on an agent's mail: by a handler, in blocks, claim by claim, or by receiving."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from afk.messaging import AgentMessage, Delivery, MessagingError, Reject, Retry
from afk.messaging.errors import LeaseLostError, StoreError
from afk.messaging.testing.history import digest

from .host import Host

if TYPE_CHECKING:
    from .story import Story

Mail = Delivery[AgentMessage]


class Terms(Struct, frozen=True):
    """How one consumer works. Times in seconds."""

    kind: str
    agent: str
    concurrency: int
    lease: float
    timeout: float
    grace: float


def terms(agent: str, chance: random.Random) -> Terms:
    """Some."""
    return Terms(
        kind=chance.choice(("serve", "serve", "serve", "blocks", "claims", "receive")),
        agent=agent,
        concurrency=chance.randint(1, 3),
        lease=0.5 + 2 * chance.random(),
        timeout=0.5 + 2 * chance.random(),
        grace=chance.choice((0.0, 0.5)),
    )


class Consumer:
    """One of them, in one process."""

    def __init__(self, story: Story, host: Host, work: Terms) -> None:
        self._story = story
        self._chance = story.chance
        self._host = host
        self._terms = work
        self._witness = host.witness(work.agent)

    async def run(self) -> None:
        """Until cancelled, whatever the store does."""
        work = {
            "serve": self._serve,
            "blocks": self._blocks,
            "claims": self._claims,
            "receive": self._receive,
        }[self._terms.kind]
        while True:
            with suppress(StoreError, LeaseLostError):
                await work()
            await asyncio.sleep(0.1)

    # -- four ways -----------------------------------------------------------------------

    async def _serve(self) -> None:
        work = self._terms
        await self._witness.mailbox.serve(
            self._witness.handler(self._handle, lease=work.lease),
            concurrency=work.concurrency,
            lease=work.lease,
            timeout=work.timeout,
            grace=work.grace,
        )

    async def _blocks(self) -> None:
        mail = self._witness.mailbox.deliveries(lease=self._terms.lease)
        handle = self._witness.handler(self._answered, lease=self._terms.lease)
        async with aclosing(mail):
            async for delivery in mail:
                try:
                    async with delivery:
                        await handle(delivery)
                except (Trouble, TimeoutError, MessagingError) as error:
                    if isinstance(error, StoreError):
                        raise

    async def _answered(self, delivery: Mail) -> None:
        async with asyncio.timeout(self._terms.timeout):
            result = await self._handle(delivery)
        if result is not None:
            await delivery.reply(result)

    async def _claims(self) -> None:
        while True:
            delivery = await self._witness.claim(4 * self._chance.random(), lease=self._terms.lease)
            if delivery is not None:
                try:
                    await self._settle(delivery)
                except (LeaseLostError, StoreError):
                    pass  # it will come again
                except MessagingError:  # no room for the answer
                    await self._witness.settle(delivery, "again", "no answer")

    async def _receive(self) -> None:
        while True:
            message = await self._witness.mailbox.receive(4 * self._chance.random())
            if message is not None:
                seen = {
                    "id": message.id,
                    "mailbox": self._terms.agent,
                    "digest": digest(message.content),
                }
                call = self._host.notes.call()
                self._host.notes.note("handle", "invoke", call=call, **seen)
                self._host.notes.note("handle", "ok", call=call, **seen)

    async def _settle(self, delivery: Mail) -> None:
        """One claimed message, in one of the ways there are to settle it, or not to."""
        settle, lease = self._witness.settle, self._terms.lease
        match int(self._chance.random() * 16) if not self._story.calm else 16:
            case 0:
                await settle(delivery, "again", "no")
            case 1:
                await settle(delivery, "dead", "never")
            case 2:
                await settle(delivery, "back")
            case 3:
                await settle(delivery, "extend", 2 * lease)
                await settle(delivery, "done")
            case 4:
                await asyncio.sleep(lease * 1.3)
                await settle(delivery, "done")
            case 5:
                pass
            case 6:
                await settle(delivery, "done")
                await self._again(delivery)
            case _:
                if result := self._result(delivery):
                    await delivery.reply(result)
                await settle(delivery, "done")

    async def _again(self, delivery: Mail) -> None:
        """Settle what is settled."""
        token = delivery.token
        with suppress(LeaseLostError, StoreError):
            await (await self._witness.mailbox.resume(token)).ack()
            self._story.wrong.append(f"fence: {token} was settled twice")

    # -- handling ------------------------------------------------------------------------

    async def _handle(self, delivery: Mail) -> Any:
        """Work on a message, or fail to, in one of many ways."""
        chance = self._chance
        if chance.random() < 0.3:
            await asyncio.sleep(chance.random())
        if not self._story.calm:
            self._fail()
            await self._work(delivery)
        return self._result(delivery)

    def _fail(self) -> None:
        match int(self._chance.random() * 24):
            case 0 | 1:
                raise Trouble("no")
            case 2:
                raise Retry(self._chance.choice((None, 0.0, 0.5)))
            case 3:
                raise Reject("never")
            case 4:
                self._story.block(2 * self._terms.lease * self._chance.random())

    async def _work(self, delivery: Mail) -> None:
        match int(self._chance.random() * 20):
            case 0:
                await asyncio.sleep(10 * self._terms.timeout)
            case 1:
                await self._witness.settle(delivery, "extend", self._terms.lease)
            case 2 | 3:
                await self._onward(delivery)
            case 4:
                await self._ask(delivery)
            case 5:
                with suppress(MessagingError):
                    await self._witness.send(*self._story.some_mail(self._terms.agent))

    async def _onward(self, delivery: Mail) -> None:
        recipient, content = self._story.some_mail(self._terms.agent)
        if delivery.message.hops < 3:
            message = await self._witness.onward(delivery, recipient, content)
            self._story.onward.setdefault(delivery.token, []).append(message.id)

    async def _ask(self, delivery: Mail) -> None:
        recipient, content = self._story.some_mail(self._terms.agent)
        if delivery.message.hops < 3:
            self._may_come(recipient, content)
            with suppress(MessagingError):
                await delivery.request(recipient, content, timeout=self._terms.timeout / 2)

    def _result(self, delivery: Mail) -> Any:
        """An answer, to most that want one."""
        message = delivery.message
        if message._context.kind == "response" or self._chance.random() < 0.3:
            return None
        answer = {"to": message.content}
        self._may_come(message.sender, answer)
        return answer

    def _may_come(self, recipient: str, content: Any) -> None:
        """Note what leaves with the ack, or by itself: whether it did is not seen here."""
        notes, call = self._host.notes, self._host.notes.call()
        asked = {
            "sender": self._terms.agent,
            "mailbox": recipient,
            "digest": digest(content),
        }
        notes.note("send", "invoke", call=call, **asked)
        notes.note("send", "unknown", call=call, **asked)


class Trouble(Exception):
    """A handler failed."""
