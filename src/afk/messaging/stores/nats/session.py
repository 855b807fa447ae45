"""One connection: it follows the log from where the replica stands, and sends to it.

Whatever goes wrong with it (the connection is lost, nothing is heard any more, a message of the
log is missing) ends it, and another is made. So there is one way to begin, and none to mend.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from datetime import datetime

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NATSError

from ...errors import ConfigurationError, MessagingError, StoreError
from ...log import log
from . import stream
from .images import restored
from .place import Place
from .replica import Replica, Step
from .steps import Op, part
from .stream import Info, Names, RefusedError

HEARTBEAT, SILENCE = 1.0, 3.5
"""Seconds between signs of life of an idle log; without one for so long, it is not heard."""
UNANSWERED = 5.0
"""Seconds in which the server answers for something that was sent. What a stream's leader had when
it died is answered by nobody, while the log may be heard from another node all the time."""
SECOND_LOOK = 0.5
YIELD_EVERY = 64


class Session:
    """Made for a replica, or makes another if the log has gone on, or back, without it.

    own: the operations of a group of this process, to save decoding them. stepped: called with
    each group that took effect. stored: called with the number of each own message the server
    answered for, and its refusal, if any. ended: called once, when this is over.
    """

    def __init__(
        self,
        place: Place,
        names: Names,
        *,
        own: Callable[[str, int], tuple[Op, ...]],
        stepped: Callable[[Step], None],
        stored: Callable[[str, RefusedError | None], None],
        ended: Callable[[Exception | None], None],
    ) -> None:
        self._place = place
        self._names = names
        self._own = own
        self._stepped = stepped
        self._stored = stored
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._over = False
        self._heard_at = self._loop.time()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._watch: asyncio.TimerHandle | None = None
        self._suspected = False
        self._unanswered: set[str] = set()
        self._answered_at = 0.0
        self._ending: Exception | None = None
        self._read = 0
        self._name = ""
        self._begin = 1
        self.image_at = 0
        self.client: Client
        self.replica: Replica
        self.info: Info
        self.informed_at = 0.0

    @property
    def over(self) -> bool:
        """Whether nothing is heard by it any more."""
        return self._over

    @property
    def max_payload(self) -> int:
        """Bytes of a message, at most."""
        return self.client.max_payload

    async def open(self, replica: Replica | None, created: str, replicas: int | None) -> None:
        """Connect, and read up to where the log is now.

        created: which log the replica is of, empty if none. ConfigurationError, StoreError.
        """
        self.client = await self._place.connect("afk.messaging", self._lost)
        try:
            if created:
                self.info = await self._found_again(created)
            else:
                self.info = await stream.ensure(self.client, self._names, replicas)
            self.informed_at = self._loop.time()
            self.replica, self.image_at = await self._standing(replica)
            self._answers = self.client.new_inbox()
            await self.client.subscribe(f"{self._answers}.*", cb=self._answered)
            await self._follow()
            self._watch = self._loop.call_later(HEARTBEAT, self._check)
            await self._reach(self.info.state.last_seq)
        except NATSError as error:  # not of a question, which says so itself
            await self.close()
            text = f"{self._place.shown}: the connection was lost ({error})"
            raise StoreError(text) from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let go of the connection."""
        self._end(None)
        if self._name:
            await stream.unfollow(self.client, self._names, self._name)
        await self._place.leave(self.client)

    async def _found_again(self, created: str) -> Info:
        for pause in (SECOND_LOOK, 0.0):  # servers that have just started may not know it yet
            try:
                info = await stream.info(self.client, self._names)
            except RefusedError as error:
                if error.error.err_code != stream.MISSING:
                    raise
                await asyncio.sleep(pause)
            else:
                if info.created == created:
                    return info
                break
        raise ConfigurationError(
            f"{self._place.shown}: stream {self._names.log} was deleted under this bus; connect"
            " again to begin anew"
        )

    # -- following the log ---------------------------------------------------------------

    async def _standing(self, replica: Replica | None) -> tuple[Replica, int]:
        """The replica, if the log still goes on from it; else one from the latest image, and where
        that is said."""
        if replica is not None and await self._goes_on(replica):
            return replica, 0
        if replica is not None:
            log.warning(
                "%s: the log has gone on, or back, without this process: its state is read anew",
                self._place.shown,
            )
        anew, at = await restored(self.client, self._names, self.info.created)
        if anew.seq > self.info.state.last_seq:  # made since that was asked
            self.info = await self._found_again(self.info.created)
        if not self.info.state.first_seq - 1 <= anew.seq <= self.info.state.last_seq:
            raise self._spoilt()
        self._begin = max(1, self.info.state.first_seq)
        return anew, at

    def _spoilt(self) -> ConfigurationError:
        return ConfigurationError(
            f"{self._place.shown}: stream {self._names.log} was purged, or set back, by hand: what"
            " it led to is lost; delete it and connect again to begin anew"
        )

    async def _look_at_its_begin(self, begin: int) -> None:
        """What is gone from the log must be in an image, or nobody who comes can go on from it."""
        if begin > self._begin:
            manifest, _ = await stream.latest(self.client, self._names)
            if manifest is None or manifest.seq < begin - 1:
                self._end(self._spoilt())
                raise self._reason()
            self._begin = begin

    async def _goes_on(self, replica: Replica) -> bool:
        """Whether the log has what the replica read last, at the same place."""
        state = self.info.state
        if replica.seq == 0:
            return state.first_seq <= 1
        if not state.first_seq <= replica.seq <= state.last_seq:
            return False
        return await stream.stored_at(self.client, self._names, replica.seq) == replica.mark

    async def _follow(self) -> None:
        inbox, self._name = self.client.new_inbox(), secrets.token_hex(8)
        await self.client.subscribe(inbox, cb=self._heard)
        start = self.replica.seq + 1
        await stream.follow(self.client, self._names, self._name, inbox, start, HEARTBEAT)

    async def _heard(self, message: Msg) -> None:
        if self._over:
            return
        self._heard_at = self._loop.time()
        try:
            if message.reply.startswith("$JS.ACK."):
                self._take(message)
            else:
                await self._idle(message)
        except (ConfigurationError, StoreError) as error:
            self._end(error)
        except Exception as error:  # noqa: BLE001 - the client would go on as if it were nothing
            log.exception("a message of the log could not be taken in")
            self._end(error)
        self._read += 1
        if self._read % YIELD_EVERY == 0:
            await asyncio.sleep(0)

    async def _idle(self, message: Msg) -> None:
        """A sign of life, or a question whether all before it was read: then it is answered."""
        headers = message.headers or {}
        if int(headers.get("Nats-Last-Stream", 0)) > self.replica.seq:
            raise StoreError("a message of the log did not come")
        asks = headers.get("Nats-Consumer-Stalled") or message.reply
        if asks:
            await self.client.publish(asks)

    def _take(self, message: Msg) -> None:
        seq, at = stream.position(message.reply)
        if seq <= self.replica.seq:
            return
        if seq != self.replica.seq + 1:
            raise StoreError("a message of the log is missing")
        found = part(message.data)
        own = () if found is None else self._own(found.writer, found.number)
        step = self.replica.read(seq, at, found, len(message.data), own)
        while self._waiting and self._waiting[0][0] <= seq:
            future = self._waiting.pop(0)[1]
            if not future.done():
                future.set_result(None)
        if step is not None:
            self._stepped(step)

    async def _reach(self, seq: int) -> None:
        """Return when the log has been read so far."""
        if self.replica.seq >= seq:
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((seq, future))
        self._waiting.sort(key=lambda each: each[0])
        if self._over:
            raise self._reason()
        await future

    async def fresh(self) -> datetime:
        """Read whatever was in the log when this was asked; the server's time then."""
        known = self.replica.seq  # on the way of the answer more may be read
        try:
            info = await stream.info(self.client, self._names)
        except RefusedError as error:
            self._end(error)
            raise
        if info.created != self.info.created or info.state.last_seq < known:
            self._end(StoreError("the log is another one"))
            raise self._reason()
        await self._look_at_its_begin(info.state.first_seq)
        await self._reach(info.state.last_seq)
        assert info.ts is not None
        return info.ts

    # -- sending -------------------------------------------------------------------------

    async def send(self, number: str, data: bytes) -> None:
        """Send a message to the log; whether it was stored is told later."""
        if not self._unanswered:
            self._answered_at = self._loop.time()
        self._unanswered.add(number)
        try:
            await self.client.publish(self._names.steps, data, reply=f"{self._answers}.{number}")
        except (NATSError, OSError) as error:
            self._end(StoreError(str(error)))

    async def _answered(self, message: Msg) -> None:
        number = message.subject.rpartition(".")[2]
        self._unanswered.discard(number)
        self._answered_at = self._loop.time()
        if not message.data:  # nobody is there to store it, for the moment
            self._end(StoreError("the stream has no leader"))
            return
        try:
            stream.check(message.data)
        except RefusedError as error:
            if error.error.err_code in stream.PASSING:
                self._end(error)  # it passes: it is sent again
            else:
                self._stored(number, error)
        else:
            self._stored(number, None)

    # -- the end -------------------------------------------------------------------------

    def _lost(self) -> None:
        self._end(StoreError("the connection was lost"))

    def _check(self) -> None:
        """Is it still heard? A process that was blocked gets a moment to read what came."""
        now = self._loop.time()
        silent = now - self._heard_at > SILENCE
        unanswered = bool(self._unanswered) and now - self._answered_at > UNANSWERED
        if (silent or unanswered) and self._suspected:
            what = "heard any more" if silent else "answered for what was sent"
            self._end(StoreError(f"the log was not {what}"))
            return
        self._suspected = silent or unanswered
        self._watch = self._loop.call_later(HEARTBEAT, self._check)

    def _end(self, error: Exception | None) -> None:
        if self._over:
            return
        self._over = True
        if self._watch is not None:
            self._watch.cancel()
        self._ending = error
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(self._reason())
        self._ended(error)

    def _reason(self) -> MessagingError:
        """Why it is over."""
        if isinstance(self._ending, ConfigurationError):
            return self._ending
        return StoreError(f"{self._place.shown}: {self._ending or 'closed'}")
