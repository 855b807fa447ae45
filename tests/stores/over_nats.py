"""What the tests of the NATS store share: buses, traffic, and a way to the server that breaks."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import nats
from nats.js import JetStreamContext

from afk.messaging import (
    AgentMailbox,
    AgentMessage,
    Delivery,
    MessageBus,
    MessagingError,
    NATSA2ADeliveryStore,
    StoreError,
)
from afk.messaging.store import Query
from afk.messaging.stores.nats.stream import Names
from afk.messaging.testing.processes import Process, run, say
from afk.messaging.testing.servers import NATS
from afk.messaging.testing.steps import AT_ONCE, serving, until


def space() -> str:
    """A namespace that nobody else uses."""
    return uuid.uuid4().hex


def bus_at(url: str, namespace: str = "afk", poll: float = 30.0, **options: Any) -> MessageBus:
    """A bus whose waiting consumers ask again after `poll` s."""
    known = {name: options.pop(name) for name in ("patience", "replicas") if name in options}
    store = NATSA2ADeliveryStore(url, namespace=namespace, **known)
    store.poll = poll
    return MessageBus(store, **options)


def store_of(bus: MessageBus) -> Any:
    return bus._core.store


def link_of(bus: MessageBus) -> Any:
    return store_of(bus)._here.link


async def failure_of(call: Awaitable[Any]) -> StoreError | None:
    """How the store failed, if it did."""
    try:
        await call
    except StoreError as error:
        return error
    return None


async def within(seconds: float, call: Awaitable[Any]) -> Any:
    """What the call returned or raised, in so many seconds."""
    began = time.monotonic()
    result: Any
    try:
        result = await call
    except (MessagingError, TimeoutError) as error:
        result = error
    taken = time.monotonic() - began
    assert taken < seconds, f"took {taken:.2f} s: {result!r}"
    return result


async def send_until_sent(
    mailbox: AgentMailbox, to: str, content: Any, key: str, failures: list[StoreError]
) -> None:
    """Repeat a send under its key until it is known to be stored."""
    while error := await failure_of(mailbox.send(to, content, idempotency_key=key)):
        assert error.key == key
        failures.append(error)
        await asyncio.sleep(0.05)


async def more(items: list[Any], number: int = 20, patience: float = 30.0) -> None:
    """Wait until the list has grown by so many, for `patience` s at most."""
    wanted = len(items) + number
    await until(lambda: len(items) >= wanted, f"{number} more", patience)


class Traffic:
    """What was accepted, what was handled, what failed."""

    def __init__(self) -> None:
        self.accepted: list[str] = []
        self.handled: list[str] = []
        self.failures: list[StoreError] = []


@asynccontextmanager
async def traffic(
    senders: MessageBus,
    consumers: MessageBus,
    *,
    padding: Callable[[], str] = lambda: "",
    consumer_url: str | None = None,
    lease: float = 5.0,
) -> AsyncIterator[Traffic]:
    """Two senders, each message under its own key, and a consumer; with a `consumer_url` another
    process is a second one. When the block is left, all that was accepted has been handled, and
    is in the store once."""
    seen = Traffic()
    stop = asyncio.Event()
    mailbox = await consumers.register("bob")

    async def sender(name: str) -> None:
        ann = await senders.register(name)
        number = 0
        while not stop.is_set():
            key = f"{name}-{number}"
            await send_until_sent(ann, "bob", [key, padding()], key, seen.failures)
            seen.accepted.append(key)
            number += 1
            await asyncio.sleep(0.002)

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        seen.handled.append(delivery.message.content[0])

    async def hears(process: Process) -> None:
        while True:
            seen.handled.append(await process.line(60))

    async with elsewhere(consumer_url, handling, lease) as process:
        if process is not None:
            assert await process.line() == ""
        hearing = asyncio.create_task(hears(process)) if process is not None else None
        async with serving(mailbox, handler, concurrency=4, lease=lease, retry=AT_ONCE):
            sending = [asyncio.create_task(sender(name)) for name in ("ann", "amy")]
            try:
                yield seen
            finally:
                stop.set()
                async with asyncio.timeout(30):
                    await asyncio.gather(*sending)
            await until(lambda: set(seen.handled) >= set(seen.accepted), "all is handled", 30)
        if hearing is not None:
            hearing.cancel()
            await asyncio.wait([hearing])
    rows = await store_of(consumers).browse(Query(mailbox="bob"))
    assert len(rows) == len(seen.accepted), "a message is there twice, or not at all"


def repeated(handled: list[str]) -> list[str]:
    """What was handled more than once."""
    return [key for key, number in Counter(handled).items() if number > 1]


@asynccontextmanager
async def elsewhere(url: str | None, work: Any, *args: Any) -> AsyncIterator[Process | None]:
    """Another process at work at the URL; none without one."""
    if url is None:
        yield None
        return
    subject: Any = SimpleNamespace(url=url)
    async with run(subject, work, *args) as process:
        yield process


async def handling(bus: MessageBus, lease: float) -> None:
    """In another process: says each key that it handles, after an empty one."""
    mailbox = await bus.register("bob")

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        say(delivery.message.content[0])

    say("")
    await mailbox.serve(handler, concurrency=4, lease=lease, retry=AT_ONCE)


@asynccontextmanager
async def jetstream(url: str, **options: Any) -> AsyncIterator[JetStreamContext]:
    """Somebody else at the server."""
    client = await nats.connect(url, **options)
    try:
        yield client.jetstream()
    finally:
        await client.close()


def log_of(namespace: str = "afk") -> Names:
    """The names of a namespace's streams and subjects."""
    return Names(namespace)


@asynccontextmanager
async def same_state(*buses: MessageBus) -> AsyncIterator[None]:
    """After the block all buses have the same state, byte for byte."""
    yield

    async def alike() -> bool:
        for bus in buses:
            await bus.agents()
        states = [list(link_of(bus).replica.pages()) for bus in buses]
        return all(state == states[0] for state in states)

    await until(alike, "all have the same state", 5)


class Way:
    """Between a bus and its server: cuts connections, holds answers back, swallows all.

    only: the name of the clients it does so to, e.g. `afk.messaging leases`; by default all.
    """

    def __init__(self, server: NATS, only: str = "") -> None:
        self._server = server
        self._only = f'"name": "{only}"'.encode() if only else b""
        self._ways: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._dead: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.open = asyncio.Event()
        self.open.set()
        self.held = 0
        self.url = ""

    async def __aenter__(self) -> Way:
        self._listening = await asyncio.start_server(self._accepted, "127.0.0.1", 0, limit=2**20)
        self.url = f"nats://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()
        for pump in self._pumps:
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._ways)

    def cut(self) -> None:
        """Close them."""
        for way in list(self._ways):
            for writer in way:
                writer.close()

    def swallow(self) -> None:
        """Nothing more comes through those that are there now, and none is closed."""
        self._dead.update(writer for way in self._ways for writer in way)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, here = await asyncio.open_connection(self._server.host, self._server.port)
        except OSError:
            writer.close()
            return
        self._writers += [writer, here]
        pumps = [self._pump(reader, here, writer), self._pump(there, writer, None)]
        for pump in pumps:
            task = asyncio.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        client: asyncio.StreamWriter | None,
    ) -> None:
        way = None if client is None else (client, sink)
        try:
            while data := await source.read(2**16):
                if way is not None and way not in self._ways and self._only in data:
                    self._ways.add(way)
                if way is None and not self.open.is_set():
                    self.held += 1
                    await self.open.wait()
                if sink not in self._dead:
                    sink.write(data)
        except OSError:
            pass
        finally:
            if way is not None:
                self._ways.discard(way)
            if sink not in self._dead:
                sink.close()
                with suppress(OSError):
                    await sink.wait_closed()
