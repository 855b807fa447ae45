"""Who sends and asks, in a process of a team."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from afk.messaging import AgentMailbox, RequestTimeoutError, StoreError
from afk.messaging.testing.history import History, digest
from afk.messaging.testing.witness import Witness

from .terms import AGAIN, ASKING, BOTH, PATIENCE, PAUSE, answer_to
from .watch import Watch

EXPIRED = "expired"


class Senders:
    """careless: what is in doubt is sent again under another key, as it must not be."""

    def __init__(
        self,
        mailbox: AgentMailbox,
        history: History,
        watch: Watch,
        chance: random.Random,
        careless: bool,
    ) -> None:
        self._mailbox = mailbox
        self._me = mailbox.name
        self._history = history
        self._watch = watch
        self._chance = chance
        self._careless = careless
        self.stopping = False
        """Begin nothing new."""

    async def send(self, recipient: str) -> None:
        """One message after the other; what is in doubt is sent again under its key."""
        witness = Witness(self._mailbox, self._history)
        number = 0
        while not self.stopping:
            number += 1
            key = f"{self._me}-{recipient}-{number}"
            content = {"key": key, "padding": "x" * self._chance.choice((0, 10, 3000))}
            await self._until_sent(partial(witness.send, recipient, content), key)
            self._watch.worked("send both" if recipient == BOTH else "send")
            await asyncio.sleep(self._chance.uniform(0.0, PAUSE))

    async def _until_sent(self, send: Callable[..., Awaitable[Any]], key: str) -> None:
        while True:
            try:
                await self._watch.timed("send", PATIENCE, send(key=key))
            except StoreError:
                self._watch.counts["send in doubt"] += 1
                await asyncio.sleep(AGAIN)
                if self._careless:
                    key += "-again"
            else:
                return

    async def ask(self, recipient: str) -> None:
        """One question after the other; asked again under its key until it is answered."""
        number = 0
        while not self.stopping:
            number += 1
            question = {"question": f"{self._me}-{number}"}
            answer = None
            while answer is None:
                answer = await self._answer(recipient, question)
            if answer is not EXPIRED:
                self._watch.worked("answer")
                if answer != answer_to(question):
                    self._watch.bad.append(f"{question} was answered {answer}")
            await asyncio.sleep(self._chance.uniform(0.0, PAUSE))

    async def _answer(self, recipient: str, question: dict[str, str]) -> Any:
        """The answer, or EXPIRED: nobody took the question in its time; None if in doubt."""
        key = question["question"]
        asked = {"key": key, "sender": self._me, "mailbox": recipient, "digest": digest(question)}
        call = self._history.call()
        self._history.note("send", "invoke", call=call, **asked)
        request = self._mailbox.request(recipient, question, timeout=ASKING, idempotency_key=key)
        try:
            answer = await self._watch.timed("request", ASKING, request)
        except (StoreError, RequestTimeoutError) as error:
            self._history.note("send", "unknown", call=call, **asked, error=repr(error))
            return await self._late(error)
        self._history.note("send", "ok", call=call, id=answer.causation_id or "", **asked)
        return answer.content

    async def _late(self, error: StoreError | RequestTimeoutError) -> Any:
        """EXPIRED if the question will never be answered; None if it is to be asked again."""
        with suppress(StoreError):
            if isinstance(error, RequestTimeoutError) and await error.receipt.status() == "dead":
                self._watch.counts["request expired"] += 1
                return EXPIRED
        self._watch.counts["request in doubt"] += 1
        await asyncio.sleep(AGAIN)
        return None
