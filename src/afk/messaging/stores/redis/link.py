"""One connection, through which everything this process asks goes in its order, pipelined.

What is asked within one tick of the event loop leaves in one write; answers are read as they
come. A lost connection is made anew. What was not sent waits for that; what was sent, and is no
mere look, has an unknown outcome.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import RedisError, ResponseError

from ...errors import InvalidMessageError, MessagingError, StoreError, UsageError
from ...lifecycle import RetryPolicy
from ...log import log
from ...overdue import Watch
from ..ending import ended
from .calls import Args, Call, Lazy, Undo, Waiter
from .faults import PASSING, code_of, moved_to, refusal
from .place import Place, drop, leave

_pack: Callable[[Args], bytes] | None = None
"""What redis-py's connection does as well, in a fifth of the time."""
with contextlib.suppress(ImportError):  # there is none, or an old one
    from hiredis import pack_command as _pack

BACKOFF = RetryPolicy(base=0.05, cap=1.0, jitter="none")
CLOSING_SECONDS = 2.0


class Link:
    """The way to the server.

    greet: called with each new connection before anything else is sent. patience: seconds a
    call waits before it fails. heard: called with every answer, and whether someone waits for it.
    """

    def __init__(
        self,
        place: Place,
        greet: Callable[[AbstractConnection], Awaitable[None]],
        patience: float,
        heard: Callable[[Any, bool], None],
    ) -> None:
        self._heard = heard
        self._place = place
        self._greet = greet
        self._patience = patience
        self._pid = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._outbox: deque[Call] = deque()
        self._inflight: deque[Call] = deque()
        self._again: list[Call] = []
        self._undoing: set[Call] = set()
        self._pending: dict[Call, None] = {}
        self._watch = Watch(self._loop, self._give_up)
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        self._connection: AbstractConnection
        self._failures = 0
        self._trouble = "no connection yet"
        self._reading: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._closed = False

    # -- life ----------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, or say why not: StoreError, ConfigurationError."""
        try:
            async with asyncio.timeout(self._patience):
                connection = await self._connect_first()
        except TimeoutError:
            raise StoreError(
                f"{self._place.shown} cannot be reached within {self._patience} s"
                f" ({self._trouble}); nothing was stored"
            ) from None
        self._connection = connection
        self._running = asyncio.create_task(self._run())

    async def _connect_first(self) -> AbstractConnection:
        left = self._place.tries
        while True:
            try:
                return await self._connect()
            except (RedisError, OSError) as error:
                passing = code_of(error) in PASSING
                left -= not passing
                if not left:  # nobody is there, or a password is wrong: that is said at once
                    text = f"{self._place.shown} cannot be used: {self._trouble}"
                    raise StoreError(f"{text}; nothing was stored") from error
                await asyncio.sleep(BACKOFF.delay(self._failures, 0))

    async def close(self) -> None:
        """Let what is on its way arrive, then let go of the connection."""
        if self._running is None or self._closed:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                while self._outbox or self._inflight:
                    self._progress.clear()
                    await self._progress.wait()
        self._closed = True
        await ended(self._running)
        await leave(self._connection)
        self._watch.cancel()
        for call in list(self._pending):
            self._fail(call, StoreError(f"{self._place.shown}: closed before it answered"))

    # -- asking --------------------------------------------------------------------------

    async def ask(self, args: Args, *, repeatable: bool = False, undo: Undo | None = None) -> Any:
        """The server's answer. Cancelled, it is not sent if it was not yet; what it did is undone
        before anything that is asked for later."""
        future = self._loop.create_future()
        call = self.submit(args, future, repeatable=repeatable, undo=undo)
        try:
            return await future
        except asyncio.CancelledError:
            self._cancelled(call, future)
            raise

    def submit(
        self,
        args: Args | Lazy,
        waiter: Waiter,
        *,
        repeatable: bool = False,
        undo: Undo | None = None,
    ) -> Call:
        """Put a call in line."""
        if os.getpid() != self._pid:
            raise UsageError("this bus was opened before a fork; connect again in the child")
        if self._closed:
            raise UsageError(f"{self._place.shown} is closed")
        call = Call(args, waiter, self._loop.time(), repeatable, undo)
        self._outbox.append(call)
        self._expect(call)
        return call

    def _expect(self, call: Call) -> None:
        self._pending[call] = None
        self._wake.set()
        self._watch.until(call.since + self._patience)

    @property
    def last(self) -> Waiter | None:
        """Who waits for the last call in line, if it has not been sent."""
        return self._outbox[-1].waiter if self._outbox else None

    def renew(self) -> None:
        """Connect anew, to where the place now points."""
        drop(self._connection)

    def _cancelled(self, call: Call, future: asyncio.Future[Any]) -> None:
        under_way = call in self._inflight or call in self._again
        if under_way and call.undo is not None and future.cancelled():
            # Nothing is sent until it is answered and undone. It stays pending, so that a server
            # that never answers is given up.
            self._undoing.add(call)
            return
        self._pending.pop(call, None)
        if not call.sent:
            with contextlib.suppress(ValueError):
                self._outbox.remove(call)
        elif call.undo is not None and not future.cancelled() and future.exception() is None:
            self._undo(call.undo, future.result())  # answered in the tick of the cancellation

    def _undo(self, undo: Undo, answer: Any) -> None:
        args = undo(answer)
        if args is not None and not self._closed:
            future = self._loop.create_future()
            future.add_done_callback(_note_failure)
            call = Call(args, future, self._loop.time(), False, None)
            self._outbox.appendleft(call)
            self._expect(call)

    def _give_up(self) -> None:
        """Fail what has waited too long; a connection that does not answer is let go."""
        for call in list(self._pending):
            end = call.since + self._patience
            if not self._watch.overdue(end):
                self._watch.until(end)
                return
            if call.sent:
                what = f"did not answer within {self._patience} s; the outcome is unknown"
                self._trouble = "it does not answer"
                drop(self._connection)
            else:
                what = f"cannot be used now ({self._trouble}); nothing was stored"
                with contextlib.suppress(ValueError):
                    self._outbox.remove(call)
            self._fail(call, StoreError(f"{self._place.shown} {what}"))

    # -- the connection ------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                await self._exchange(self._connection)
            except Exception:  # noqa: BLE001 - whatever it is, the link must live on
                log.exception("%s: the connection failed", self._place.shown)
            self._connection = await self._reconnect()

    async def _reconnect(self) -> AbstractConnection:
        while True:
            self._failures += 1
            await asyncio.sleep(BACKOFF.delay(self._failures, 0))
            try:
                return await self._connect()
            except Exception as error:  # noqa: BLE001 - likewise
                log.warning("%s: not connected: %s", self._place.shown, error)

    async def _connect(self) -> AbstractConnection:
        connection = None
        try:
            async with asyncio.timeout(self._patience):
                connection = await self._place.connect()
                await self._greet(connection)
            return connection
        except BaseException as error:
            self._heed(error)
            if connection is not None:
                await leave(connection)
            raise

    def _heed(self, error: BaseException) -> None:
        """What an error says of why, and where else to go."""
        code = code_of(error)
        if code == "MOVED" and (address := moved_to(error)) is not None:
            self._place.redirect(address)
        elif not isinstance(error, asyncio.CancelledError):
            self._trouble = PASSING.get(code, str(error).rstrip(".") or "it does not answer")

    async def _exchange(self, connection: AbstractConnection) -> None:
        """Send and read until the connection is lost, or is to be made anew."""
        self._reading = asyncio.create_task(self._read(connection))
        self._reading.add_done_callback(lambda _: self._wake.set())
        try:
            while not self._reading.done():
                self._wake.clear()
                if self._outbox and not self._again and not self._undoing:
                    await self._send(connection)
                else:
                    await self._wake.wait()
                    await asyncio.sleep(0)  # who was woken by what is asked asks in the next tick
        except (RedisError, OSError) as error:
            self._trouble = str(error)
        finally:
            if self._inflight:
                drop(connection)
            self._reading.cancel()
            await asyncio.wait([self._reading])
            self._lost()
            await leave(connection)
            if not self._reading.cancelled() and (failure := self._reading.exception()):
                raise failure

    async def _send(self, connection: AbstractConnection) -> None:
        waiting, self._outbox = self._outbox, deque()
        packed = [text for call in waiting if (text := self._packed(connection, call))]
        async with asyncio.timeout(self._patience):  # a server that reads nothing fills the pipe
            await connection.send_packed_command(packed, check_health=False)

    def _packed(self, connection: AbstractConnection, call: Call) -> bytes:
        """What is to be sent, and the call is under way; nothing, if it is not to be sent."""
        if call.waiter.cancelled():
            self._pending.pop(call, None)
            return b""
        try:
            args = call.args() if callable(call.args) else call.args
            text: bytes = _pack(args) if _pack else b"".join(connection.pack_command(*args))
        except Exception as error:  # noqa: BLE001 - it is this caller's, and no other's
            self._fail(call, InvalidMessageError(f"not a text that can be stored: {error}"))
            return b""
        call.sent = True
        self._inflight.append(call)
        return text

    async def _read(self, connection: AbstractConnection) -> None:
        try:
            while not self._again or self._inflight:
                answer: Any
                try:
                    answer = await connection.read_response(disconnect_on_error=False)
                except LostError as error:  # of these, some are a server's answer
                    if code_of(error) not in PASSING:
                        raise
                    answer = error
                except ResponseError as error:
                    answer = error
                self._answered(self._inflight.popleft(), answer)
                self._progress.set()
        except (RedisError, OSError) as error:
            self._trouble = str(error)

    def _answered(self, call: Call, answer: Any) -> None:
        if isinstance(answer, RedisError):
            if code_of(answer) in PASSING:
                self._heed(answer)
                self._again.append(call)  # nothing was done; all that was sent is heard first
                return
            self._fail(call, refusal(self._place.shown, answer))
        else:
            self._failures = 0
            self._heard(answer, not call.waiter.done())
        self._pending.pop(call, None)
        if not call.waiter.done():
            call.waiter.set_result(answer)
        elif call.waiter.cancelled() and call.undo is not None:
            self._undoing.discard(call)
            self._wake.set()
            if not isinstance(answer, RedisError):
                self._undo(call.undo, answer)

    def _lost(self) -> None:
        """Sort what was under way when the connection went."""
        unknown, self._inflight = self._inflight, deque()
        again, self._again = self._again, []
        self._undoing.clear()
        self._progress.set()
        for call in unknown:
            if call.repeatable and not call.waiter.done():
                again.append(call)
            else:
                text = f"{self._place.shown} was lost ({self._trouble}); the outcome is unknown"
                self._fail(call, StoreError(text))
        for call in reversed(again):
            if call.waiter.done():
                self._pending.pop(call, None)
            else:
                call.sent = False
                self._outbox.appendleft(call)

    def _fail(self, call: Call, error: MessagingError) -> None:
        self._pending.pop(call, None)
        if not call.waiter.done():
            call.waiter.set_exception(error)


def _note_failure(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.warning("what was given back will come again when its lease ends: %s", error)
