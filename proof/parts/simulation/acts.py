"""What users do meanwhile: they send, ask, cancel, mend and look."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from afk.messaging import MessagingError
from afk.messaging.errors import RequestFailedError, RequestTimeoutError, StoreError
from afk.messaging.messages import PRIORITIES
from afk.messaging.overdue import SPARE
from afk.messaging.testing.history import digest

from .host import Host

if TYPE_CHECKING:
    from .story import Story


class Acts:
    """Each is one user's call, or a few, in one process."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._chance = story.chance
        self.all = (
            *[self.send] * 8,
            *[self.ask] * 4,
            self.send_together,
            self.broadcast,
            self.cancel,
            self.redrive,
            self.read,
        )

    async def send(self, host: Host) -> None:
        """A letter; after a StoreError again under its key."""
        sender = self._story.some_agent()
        recipient, content = self._story.some_mail(sender)
        key, options = self._options()
        if key and self._chance.random() < 0.8:
            content = {"key": key}
        await self._send(host, sender, recipient, content, key, options)

    async def send_together(self, host: Host) -> None:
        """The same key, from several tasks at once."""
        sender = self._story.some_agent()
        recipient, _ = self._story.some_mail(sender)
        key, content = "together", {"key": "together"}
        for other in (host, self._story.some_host()):
            if not other.gone:
                call = self._send(other, sender, recipient, content, key, {})
                self._story.call(other, call)

    async def _send(
        self,
        host: Host,
        sender: str,
        recipient: str,
        content: Any,
        key: str,
        options: dict[str, Any],
    ) -> None:
        witness = host.witness(sender)
        for _ in range(3):
            try:
                receipt = await witness.send(recipient, content, key=key, **options)
            except StoreError:
                if not key:
                    return
                await asyncio.sleep(0.2 * self._chance.random())
            except MessagingError:
                return
            else:
                self._story.ids.append(receipt.id)
                return

    async def ask(self, host: Host) -> None:
        """A request: it ends in time, with its own answer if with one."""
        story, notes, sender = self._story, host.notes, self._story.some_agent()
        recipient, content = story.some_mail(sender)
        key, options = self._options()
        options.pop("delay", None)
        if key:
            key, content = f"ask {key}", {"ask": key}
        timeout = 0.5 + 2 * self._chance.random()
        asked = {"key": key, "sender": sender, "mailbox": recipient, "digest": digest(content)}
        call = notes.call()
        notes.note("send", "invoke", call=call, **asked)
        began, lost = story.loop.time(), story.loop.lost
        try:
            answer = await host.bus.mailbox(sender).request(
                recipient, content, timeout=timeout, idempotency_key=key or None, **options
            )
        except RequestTimeoutError as late:
            notes.note("send", "ok", call=call, id=late.receipt.id, duplicate=bool(key), **asked)
        except RequestFailedError:
            notes.note("send", "unknown", call=call, **asked)
        except StoreError:
            notes.note("send", "unknown", call=call, **asked)
        except MessagingError as refused:
            notes.note("send", "fail", call=call, error=repr(refused), **asked)
        else:
            notes.note(
                "send", "ok", call=call, id=answer.causation_id, duplicate=bool(key), **asked
            )
            if answer.content != {"to": content} and not host.gone:
                story.wrong.append(f"answer: {content} was answered by {answer.content}")
        blocked = story.loop.lost - lost
        over = story.loop.time() - began - timeout - SPARE - blocked
        if over > 0.01 and not host.gone:  # a few timers, each a little late
            story.wrong.append(f"deadline: a request of {timeout} s took {over} s longer")

    async def broadcast(self, host: Host) -> None:
        """A copy for everyone else."""
        sender, notes = self._story.some_agent(), host.notes
        content = self._story.content()
        calls = []
        for name in self._story.agents:
            if name != sender:
                asked = {"sender": sender, "mailbox": name, "digest": digest(content)}
                calls.append((notes.call(), asked))
                notes.note("send", "invoke", call=calls[-1][0], **asked)
        try:
            receipts = await host.bus.mailbox(sender).broadcast(content)
        except MessagingError as error:
            for call, asked in calls:
                notes.note("send", "unknown", call=call, error=repr(error), **asked)
            return
        for (call, asked), receipt in zip(calls, receipts, strict=True):
            notes.note("send", "ok", call=call, id=receipt.id, **asked)

    async def cancel(self, host: Host) -> None:
        """Something that was sent."""
        if not self._story.ids:
            return
        name = self._chance.choice(self._story.ids)
        with suppress(MessagingError):
            # Who was given it before, and lost the lease, may begin with it only now.
            if await host.bus.cancel(name) and not self._story.server.claimed(name):
                host.notes.note("cancel", id=name)

    async def redrive(self, host: Host) -> None:
        """Dead letters of an agent, one by one."""
        with suppress(MessagingError):
            for letter in await host.bus.dead_letters(self._story.some_agent(), limit=3):
                await host.bus.redrive(letter.id)

    async def read(self, host: Host) -> None:
        """Look at everything there is to look at."""
        bus = host.bus
        with suppress(MessagingError):
            await bus.stats()
            await bus.mailbox(self._story.some_agent()).peek()
            if self._story.ids:
                name = self._chance.choice(self._story.ids)
                await bus.trace(name)
                if await bus.status(name) is None and not host.gone:
                    self._story.wrong.append(f"lost: {name} has no status")

    def _options(self) -> tuple[str, dict[str, Any]]:
        chance = self._chance
        key = chance.choice(("a", "b")) if chance.random() < 0.4 else ""
        options: dict[str, Any] = {}
        if key:  # what is said of a keyed message is the same each time
            return key, options
        options["priority"] = chance.choice(PRIORITIES)
        if chance.random() < 0.2:
            options["delay"] = 2 * chance.random()
        if chance.random() < 0.2:
            options["ttl"] = 0.2 + 3 * chance.random()
        if chance.random() < 0.4:
            options["thread_id"] = chance.choice(("x", "y"))
        return key, options
