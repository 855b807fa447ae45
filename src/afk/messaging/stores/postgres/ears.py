"""Hearing of what other processes did and of what time brings, and telling others: hints only.

One connection listens, whoever waits. A look, one query for all that is waited for, is taken when
something is due, when too much happened to be named, and now and then in case a hint was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from ...errors import MessagingError
from ...hints import Bells
from ...lifecycle import RetryPolicy
from ...log import log
from ...store import FATE, MAIL
from .session import Session

LOOK_SECONDS, LISTENING_SECONDS = 0.5, 3.0
"""Seconds between looks while someone waits: without notifications, and with them."""
PAUSE, LONGEST_PAUSE = 0.01, 1.0
"""Seconds between notifications of this process, at least, and at most if there are any. The first
is for looks too."""
LAST_SECONDS = 1.0
"""For what is still to be said at the end."""
LONGEST = 7900
"""Bytes of a notification; what does not fit is not named."""
AT_ONCE = 16
"""Consumers of one mailbox that one look, or one notification, wakes at most."""
EVERYTHING = "*"
BACKOFF = RetryPolicy(base=0.1, cap=5.0)

Looked = tuple[list[str], float | None]
"""Topics with news, and in how many seconds something is due."""


def channel_of(schema: str, namespace: str) -> str:
    """The channel of a namespace: an identifier, whatever their names are."""
    return "afk_" + hashlib.blake2b(f"{schema}\0{namespace}".encode(), digest_size=12).hexdigest()


class Ears:
    """Lives in the event loop.

    connect: makes the session that listens. look: asks the store which of these topics have news,
    after letting time pass. tell: has the store notify others of a payload.
    """

    def __init__(
        self,
        shown: str,
        channel: str,
        bells: Bells,
        connect: Callable[[], Awaitable[Session]],
        look: Callable[[list[str]], Awaitable[Looked]],
        tell: Callable[[str, str], Awaitable[Any]],
    ) -> None:
        self._shown = shown
        self._channel = channel
        self._bells = bells
        self._connect = connect
        self._look = look
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._me = secrets.token_hex(4)
        self._due = float("inf")
        self._wake = asyncio.Event()
        self._every = LOOK_SECONDS
        self._asleep = False
        self._tasks: list[asyncio.Task[None]] = []
        self._untold: Counter[str] = Counter()
        self._telling: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()

    # -- for this process ------------------------------------------------------------------

    def awake(self) -> None:
        """Someone waits."""
        if not self._tasks:
            self._tasks = [
                self._loop.create_task(self._listen()),
                self._loop.create_task(self._look_around()),
            ]
        if self._asleep:
            self._asleep = False
            self._due = self._loop.time()  # what happened while nobody waited is not known
            self._wake.set()

    async def close(self) -> None:
        """Hear and tell no more."""
        tasks = [*self._tasks, *([self._telling] if self._telling else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._untold:
            with contextlib.suppress(MessagingError, TimeoutError):
                async with asyncio.timeout(LAST_SECONDS):
                    await self._tell(*self._notification(self._untold, self._me))

    def topics(self, topics: list[str]) -> None:
        """This process brought news of these: who waits here looks, and others are told."""
        if not topics:
            return
        for topic in topics:
            self._bells.ring(topic)
        self._say(topics)

    def soon(self, seconds: float) -> None:
        """Something is due then: others may not look in time by themselves."""
        self.expect(seconds)
        if seconds < LISTENING_SECONDS:
            self._say([EVERYTHING])

    def expect(self, seconds: float) -> None:
        """Something is due then: look at that time."""
        due = self._loop.time() + seconds
        if due < self._due:
            self._due = due
            if self._tasks:
                self._wake.set()

    # -- looking -------------------------------------------------------------------------

    async def _look_around(self) -> None:
        last = float("-inf")
        while True:
            await self._until_due()
            if not self._bells:
                await self._sleep()
                continue
            await asyncio.sleep(last + PAUSE - self._loop.time())
            self._due = float("inf")
            try:
                topics, due = await self._look(self._bells.topics())
            except Exception as error:  # noqa: BLE001 - the store failed: who waits must be heard
                log.warning("%s: not looked for news: %s", self._shown, error)
                self.expect(1.0)
                continue
            last = self._loop.time()
            for topic in topics:
                self._ring(topic, AT_ONCE)  # there may be more than one
            if due is not None:
                self.expect(max(due, PAUSE))

    async def _sleep(self) -> None:
        """Until someone waits."""
        self._asleep, self._due = True, float("inf")
        while self._asleep:
            self._wake.clear()
            await self._wake.wait()

    async def _until_due(self) -> None:
        """Until something is due, or long enough to look anyhow."""
        end = self._loop.time() + self._every
        while (wait := min(end, self._due) - self._loop.time()) > 0:
            self._wake.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                return

    # -- listening -----------------------------------------------------------------------

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                session = await self._connect()
                if session.pooled:
                    await session.leave()
                    log.info(
                        "%s: no notifications through a connection pooler; looking for news every"
                        " %s s instead",
                        self._shown,
                        LOOK_SECONDS,
                    )
                    return
                try:
                    await self._hear(session)
                    failures = 0
                finally:
                    await session.leave()
            except Exception as error:  # noqa: BLE001 - who waits must be heard again
                log.debug("%s: not heard: %s", self._shown, error)
            self._every = LOOK_SECONDS
            failures += 1
            await asyncio.sleep(BACKOFF.delay(failures, random.random()))

    async def _hear(self, session: Session) -> None:
        """Until the connection is lost."""
        connection = session.connection
        self._gone.clear()
        connection.add_termination_listener(self._ended)
        await connection.add_listener(self._channel, self._heard)
        try:
            self._every = LISTENING_SECONDS
            self.expect(0.0)  # what was told meanwhile is lost
            await self._gone.wait()
        finally:
            if not session.lost():
                connection.remove_termination_listener(self._ended)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LAST_SECONDS):
                        await connection.remove_listener(self._channel, self._heard)

    def _ended(self, _: Any) -> None:
        self._gone.set()

    def _heard(self, connection: Any, pid: int, channel: str, payload: str) -> None:
        sender, *topics = payload.split("\n")
        if sender == self._me:
            return
        for line in topics:
            topic, _, times = line.partition("\t")
            if topic == EVERYTHING:
                self.expect(0.0)
            else:
                self._ring(topic, int(times or 1))

    def _ring(self, topic: str, times: int) -> None:
        for _ in range(min(times, self._bells.count(topic), AT_ONCE)):
            self._bells.ring(topic)

    # -- telling others ------------------------------------------------------------------

    def word(self, topics: list[str], due: list[float]) -> tuple[str, str] | None:
        """What the caller's transaction is to notify of, a channel and a payload, if anything: of
        topics with news, and something due in so many seconds. This process hears it too."""
        news = Counter(topics)
        if any(seconds < LISTENING_SECONDS for seconds in due):
            news[EVERYTHING] = 1
        return self._notification(news, "") if news else None

    def _notification(self, topics: Counter[str], sender: str) -> tuple[str, str]:
        """A channel and a payload; of more than fits nothing is named."""
        lines = [topic if times == 1 else f"{topic}\t{times}" for topic, times in topics.items()]
        text = "\n".join([sender, *lines])
        return self._channel, text if len(text) <= LONGEST else f"{sender}\n{EVERYTHING}"

    def _say(self, topics: list[str]) -> None:
        """At once, or with what else there is by the end of the pause."""
        self._untold.update(topics)
        if self._telling is None or self._telling.done():
            self._telling = self._loop.create_task(self._tell_others())

    async def _tell_others(self) -> None:
        while self._untold:
            topics, began = self._untold, self._loop.time()
            self._untold = Counter()
            try:
                await self._tell(*self._notification(topics, self._me))
            except asyncio.CancelledError:
                self._untold += topics
                raise
            except Exception as error:  # noqa: BLE001 - a hint is lost: others look now and then
                log.debug("%s: others were not told: %s", self._shown, error)
            # A slow server has better things to do; one that was away has not.
            took = self._loop.time() - began
            await asyncio.sleep(min(max(PAUSE, 10 * took), LONGEST_PAUSE))


def split(topics: list[str]) -> tuple[list[str], list[str]]:
    """The mailboxes and the messages among topics."""
    boxes = [topic[len(MAIL) :] for topic in topics if topic.startswith(MAIL)]
    return boxes, [topic[len(FATE) :] for topic in topics if topic.startswith(FATE)]
