"""Who receives, claims and serves, in a process of a team."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

from afk.messaging import (
    AgentMailbox,
    AgentMessage,
    Delivery,
    LeaseLostError,
    MessageBus,
    StoreError,
)
from afk.messaging.testing.history import History, digest
from afk.messaging.testing.witness import Witness

from .terms import AGAIN, BOTH, LEASE, PATIENCE, RETRY, answer_to, report_of
from .watch import Watch


class Receivers:
    """me: how the mailboxes begin that only this process reads."""

    def __init__(
        self, bus: MessageBus, me: str, history: History, watch: Watch, chance: random.Random
    ) -> None:
        self._bus = bus
        self._me = me
        self._history = history
        self._watch = watch
        self._chance = chance

    async def join(self, name: str) -> AgentMailbox:
        """The mailbox, once the store can say that it is there."""
        while True:
            try:
                return await self._bus.register(name)
            except StoreError:
                await asyncio.sleep(AGAIN)

    async def receive(self) -> None:
        """`receive`, with a wait that is longer than a round."""
        mailbox = await self.join(f"{self._me}-in")
        while True:
            try:
                message = await mailbox.receive(timeout=60)
            except StoreError:
                await asyncio.sleep(AGAIN)
                continue
            if message is not None:
                self._watch.worked("receive")
                self._history.note(
                    "claim", id=message.id, mailbox=mailbox.name, digest=digest(message.content)
                )

    async def claim(self) -> None:
        """`claim`, some work, `ack`; from a mailbox that others claim from too."""
        both = Witness(await self.join(BOTH), self._history)
        while True:
            try:
                delivery = await both.claim(60, lease=LEASE)
            except StoreError:
                await asyncio.sleep(AGAIN)
                continue
            if delivery is not None:
                self._watch.worked("claim")
                await asyncio.sleep(self._chance.choice((0.0, 0.0, 0.0, 0.05)))
                await self._settle(both, delivery)

    async def _settle(self, both: Witness, delivery: Delivery[AgentMessage]) -> None:
        """Until it is known whether it is settled: here, or as another has it."""
        while True:
            try:
                await self._watch.timed("ack", PATIENCE, both.settle(delivery, "done"))
            except StoreError:
                self._watch.counts["ack in doubt"] += 1
                await asyncio.sleep(AGAIN)
                continue
            except LeaseLostError:
                self._watch.counts["lease lost"] += 1
            return

    async def serve(self) -> None:
        """Answers questions; a message to both leaves with each answer."""
        mailbox = await self.join(f"{self._me}-ask")
        witness = Witness(mailbox, self._history)

        async def handle(delivery: Delivery[AgentMessage]) -> Any:
            question = delivery.message.content
            await asyncio.sleep(self._chance.choice((0.0, 0.01)))
            await witness.onward(delivery, BOTH, report_of(question))
            answer = answer_to(question)
            self._may_send(delivery.message.sender, answer)
            self._watch.worked("serve")
            return answer

        await mailbox.serve(
            witness.handler(handle, lease=LEASE), concurrency=2, lease=LEASE, retry=RETRY
        )

    def _may_send(self, recipient: str, content: Any) -> None:
        """Note what leaves with an ack, of which its sender hears nothing."""
        asked = {"sender": f"{self._me}-ask", "mailbox": recipient, "digest": digest(content)}
        call = self._history.call()
        self._history.note("send", "invoke", call=call, **asked)
        self._history.note("send", "unknown", call=call, **asked)

    async def wait_in_vain(self) -> None:
        """Calls with a deadline on an empty mailbox: they must end at it, whatever happens."""
        mailbox = await self.join(f"{self._me}-idle")
        waits = 0
        while True:
            waits += 1
            call = mailbox.receive(timeout=0.5) if waits % 2 else mailbox.claim(timeout=0.5)
            with suppress(StoreError):
                found = await self._watch.timed("wait", 0.5, call)
                if found is not None:
                    self._watch.bad.append(f"{found!r} came to an idle mailbox")
            await asyncio.sleep(AGAIN)
