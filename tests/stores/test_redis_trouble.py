"""What goes wrong between a bus and its server, and how it ends."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis import asyncio as aioredis

from afk.messaging import (
    AgentMailbox,
    AgentMessage,
    Delivery,
    MessageBus,
    MessagingError,
    RedisA2ADeliveryStore,
    RetryPolicy,
    StoreError,
    UsageError,
    connect,
)
from afk.messaging.lifecycle import parse_token
from afk.messaging.store import Turn
from afk.messaging.testing.clock import FakeClock
from afk.messaging.testing.servers import Server, find, free_port
from afk.messaging.testing.steps import AT_ONCE, claimed, contents, serving, until
from proof.proxy import HOST, Proxy


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that the test may damage.

    It writes before it answers: with `everysec` it puts that off while the disk is being synced.
    """
    with Server(find("redis"), tmp_path / "server", appendfsync="no") as server:
        yield server


@pytest.fixture(params=["redis", "valkey"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Likewise, of each kind: for what a server decides."""
    with Server(find(request.param), tmp_path / "server", appendfsync="no") as server:
        yield server


def space() -> str:
    """A namespace that nobody else uses."""
    return uuid.uuid4().hex


def bus_at(
    server: Server, namespace: str = "afk", poll: float = 30.0, **options: Any
) -> MessageBus:
    """A bus whose waiting consumers ask again after `poll` s."""
    patience = options.pop("patience", 10.0)
    client = aioredis.Redis.from_url(server.url)
    store = RedisA2ADeliveryStore(client, namespace=namespace, patience=patience)
    store.poll = poll
    return MessageBus(store, **options)


async def send_until_sent(
    mailbox: AgentMailbox, to: str, content: Any, key: str, failures: list[StoreError]
) -> None:
    """Repeat a send under its key until it is known to be stored."""
    while error := await failure_of(mailbox.send(to, content, idempotency_key=key)):
        assert error.key == key
        assert error.message.content == content
        failures.append(error)
        await asyncio.sleep(0.01)


async def failure_of(call: Awaitable[Any]) -> StoreError | None:
    """How the store failed, if it did."""
    try:
        await call
    except StoreError as error:
        return error
    return None


@asynccontextmanager
async def traffic(
    senders: MessageBus, consumers: MessageBus
) -> AsyncIterator[tuple[list[str], list[str], list[StoreError]]]:
    """Two senders, each message under its own key, and a consumer; (accepted, handled, failures).

    When the block is left, all that was accepted has been handled.
    """
    accepted: list[str] = []
    handled: list[str] = []
    failures: list[StoreError] = []
    stop = asyncio.Event()
    mailbox = await consumers.register("bob")

    async def sender(name: str) -> None:
        ann = await senders.register(name)
        number = 0
        while not stop.is_set():
            content = f"{name}-{number}"
            await send_until_sent(ann, "bob", content, content, failures)
            accepted.append(content)
            number += 1
            await asyncio.sleep(0.001)

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        handled.append(delivery.message.content)

    async with serving(mailbox, handler, concurrency=4, lease=2.0, retry=AT_ONCE):
        sending = [asyncio.create_task(sender(name)) for name in ("ann", "amy")]
        try:
            yield accepted, handled, failures
        finally:
            stop.set()
            async with asyncio.timeout(20):
                await asyncio.gather(*sending)
        await until(lambda: set(handled) >= set(accepted), "all is handled")


async def more(items: list[Any], number: int = 20) -> None:
    """Wait until the list has grown by so many."""
    wanted = len(items) + number
    await until(lambda: len(items) >= wanted, f"{number} more", 15)


# -- the server is gone for a while ------------------------------------------------------


@pytest.mark.parametrize("appendfsync", ["always", "no"])
async def test_a_crash_of_the_server_loses_nothing_that_was_accepted(
    tmp_path: Path, appendfsync: str
) -> None:
    with Server(find("redis"), tmp_path, appendfsync=appendfsync) as server:
        senders, consumers = bus_at(server, patience=3), bus_at(server, patience=3)
        async with senders, consumers, traffic(senders, consumers) as (accepted, handled, _):
            for _ in range(3):
                await more(accepted)
                server.kill()
                await asyncio.to_thread(server.start)
            await more(accepted)
            await more(handled)
        assert len(accepted) == len(set(accepted))


async def test_a_call_under_way_in_a_crash_says_what_to_send_again(server: Server) -> None:
    async with bus_at(server, patience=3) as bus:
        mailbox = await bus.register("a")
        server.pause()
        sending = asyncio.create_task(mailbox.send("a", "content", idempotency_key="k"))
        requesting = asyncio.create_task(mailbox.request("a", "question", timeout=20))
        await asyncio.sleep(0.05)
        server.kill()
        for task, content in ((sending, "content"), (requesting, "question")):
            with pytest.raises(StoreError, match="unknown") as raised:
                async with asyncio.timeout(1):
                    await task
            assert raised.value.message.content == content
            assert raised.value.key == ("k" if content == "content" else raised.value.message.id)
        await asyncio.to_thread(server.start)
        await mailbox.send("a", "content", idempotency_key="k")
        assert await contents(mailbox) == ["content"]


async def noticed(caplog: pytest.LogCaptureFixture) -> None:
    """Wait until the bus knows that its server is gone."""
    await until(lambda: "not connected" in caplog.text, "the loss is noticed")


async def test_a_call_made_while_the_server_is_down_waits_for_it(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus_at(server) as bus:
        mailbox = await bus.register("a")
        server.kill()
        await noticed(caplog)
        sending = asyncio.create_task(mailbox.send("a", "content"))
        await asyncio.sleep(0.3)
        assert not sending.done()
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(3):
            await sending
        assert await contents(mailbox) == ["content"]


async def test_a_server_that_stays_away_is_said_after_the_patience(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus_at(server, patience=0.5) as bus:
        mailbox = await bus.register("a")
        server.kill()
        await noticed(caplog)
        began = time.monotonic()
        with pytest.raises(StoreError, match="nothing was stored") as raised:
            await mailbox.send("a", "content", idempotency_key="k")
        assert 0.3 < time.monotonic() - began < 1.5
        assert raised.value.key == "k"
        assert str(server.port) in str(raised.value)
        began = time.monotonic()
    assert time.monotonic() - began < 3, "closing waits for a server that is gone"


async def it_waits(server: Server, bus: MessageBus) -> None:
    """Wait until its only consumer waits, and is done with the look it takes when it begins to."""
    await until(lambda: "blocked_clients:1" in server.call("INFO", "clients"), "it waits")
    await bus.agents()


async def test_a_waiting_consumer_hears_again_after_a_restart(server: Server) -> None:
    async with bus_at(server) as bus, bus_at(server) as other:
        mailbox = await bus.register("a")
        sender = await other.register("b")
        waiting = asyncio.create_task(mailbox.receive())
        await it_waits(server, bus)
        server.kill()
        await asyncio.to_thread(server.start)
        failures: list[StoreError] = []
        await send_until_sent(sender, "a", "hello", "k", failures)
        async with asyncio.timeout(5):
            message = await waiting
        assert message is not None


async def test_who_waits_does_not_wait_for_a_connection_that_is_forgotten(server: Server) -> None:
    """Forgotten on its way just while it was being made: that takes no longer than a call may."""
    with Proxy(HOST, server.port) as proxy:
        here = f"redis://{HOST}:{proxy.port}?patience=0.5"
        async with connect(here) as bus, bus_at(server) as other:
            bob, sender = await bus.register("bob"), await other.register("ada")
            waiting = asyncio.create_task(bob.receive())
            await it_waits(server, bus)
            proxy.reset()
            proxy.freeze()
            await until(lambda: proxy.connections == 2, "it connects anew")
            proxy.forget()
            proxy.heal()
            assert await sender.send("bob", "hi")
            async with asyncio.timeout(5):
                message = await waiting
            assert message is not None


async def test_a_handler_keeps_its_message_over_a_restart(server: Server) -> None:
    async with bus_at(server) as bus, bus_at(server) as other:
        mailbox = await bus.register("a")
        await mailbox.send("a", 1)
        handled = []

        async def handler(delivery: Delivery[AgentMessage]) -> None:
            handled.append(delivery.attempt)
            server.kill()
            await asyncio.to_thread(server.start)
            assert await (await other.register("a")).claim(timeout=4) is None  # renewed again

        async with serving(mailbox, handler, lease=2.0):

            async def done() -> bool:
                return (await bus.stats())["a"].pending["all"] == 0 and bool(handled)

            await until(done, "it is handled")
        assert handled == [1]


# -- the server does not answer ----------------------------------------------------------


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


async def test_a_silent_server_ends_each_call_in_its_time(either: Server) -> None:
    async with bus_at(either, patience=1, lease=1, retry=AT_ONCE) as bus:
        mailbox = await bus.register("a")
        receipt = await mailbox.send("a", "first")
        either.pause()
        try:
            error = await within(2, mailbox.send("a", "second", idempotency_key="k"))
            assert isinstance(error, StoreError)
            assert (error.key, error.message.content) == ("k", "second")
        finally:
            either.resume()
        again = await mailbox.send("a", "second", idempotency_key="k")
        assert isinstance(again.duplicate, bool)  # which of both, nobody can know
        assert await contents(mailbox) == ["first", "second"]
        assert await receipt.settled(timeout=2) == "done"


@pytest.mark.parametrize("patience", [1, 10])
async def test_a_silent_server_ends_what_has_a_deadline_at_it(
    server: Server, patience: float
) -> None:
    async with bus_at(server, patience=patience, lease=1, retry=AT_ONCE) as bus:
        mailbox = await bus.register("a")
        receipt = await mailbox.send("a", "first")
        server.pause()
        try:
            results = await asyncio.gather(
                within(1.5, mailbox.receive(timeout=0.5)),
                within(1.5, mailbox.claim(timeout=0.5)),
                within(1.5, mailbox.request("a", "?", timeout=0.5)),
                within(1.5, receipt.settled(timeout=0.5)),
                within(1.5, receipt.result(timeout=0.5)),
            )
        finally:
            server.resume()
        assert "first" not in results
        await mailbox.send("a", "second")

        found: list[Any] = []

        async def all_there() -> bool:
            found.extend(await contents(mailbox))
            return {"first", "second"} <= set(found)

        await until(all_there, "what was asked for in silence comes again", 5)


async def test_a_server_that_pauses_its_clients_is_waited_for(server: Server) -> None:
    senders, consumers = bus_at(server), bus_at(server)
    async with senders, consumers, traffic(senders, consumers) as (accepted, handled, failures):
        for mode in ("ALL", "WRITE"):
            await more(accepted)
            server.call("CLIENT", "PAUSE", 700, mode)
            count = len(accepted)
            await asyncio.sleep(0.3)
            assert len(accepted) <= count + 4, "nothing was paused"
            await more(accepted)
        await more(handled)
        assert not failures


# -- connections and scripts go ----------------------------------------------------------


async def test_forgotten_scripts_are_not_noticed(either: Server) -> None:
    senders, consumers = bus_at(either), bus_at(either)
    async with senders, consumers, traffic(senders, consumers) as (accepted, handled, failures):
        for _ in range(5):
            await more(accepted, 10)
            either.call("SCRIPT", "FLUSH")
        await more(handled, 10)
        assert not failures


async def test_cut_connections_leave_only_unknown_outcomes(server: Server) -> None:
    senders, consumers = bus_at(server), bus_at(server)
    async with senders, consumers:
        async with traffic(senders, consumers) as (accepted, handled, failures):
            end = time.monotonic() + 3
            while time.monotonic() < end:
                server.call("CLIENT", "KILL", "TYPE", "normal")
                await asyncio.sleep(0.05)
            await more(accepted)
            await more(handled)
        for error in failures:
            assert "unknown" in str(error)
        stored = server.call("ZCARD", "afk:{afk}:accepted")
        assert stored == len(accepted), "a message is there twice, or not at all"


async def test_a_cut_connection_does_not_delay_mail(server: Server) -> None:
    async def received() -> AgentMessage | None:
        try:
            return await mailbox.receive()
        except StoreError:  # it was just asking, and that was cut
            return await mailbox.receive()

    async with bus_at(server) as bus, bus_at(server) as other:
        mailbox = await bus.register("a")
        sender = await other.register("b")
        for number in range(5):
            waiting = asyncio.create_task(received())
            await until(lambda: bool(server.call("EXISTS", "afk:{afk}:ears:mail:a")), "it waits")
            server.call("CLIENT", "KILL", "TYPE", "normal")
            failures: list[StoreError] = []
            await send_until_sent(sender, "a", number, str(number), failures)
            async with asyncio.timeout(4):
                message = await waiting
            assert message is not None
            assert message.content == number


# -- the server forgets, or is full ------------------------------------------------------


async def says_it_is_lost(bus: MessageBus, mailbox: AgentMailbox) -> None:
    calls = (
        lambda: mailbox.send(mailbox.name, 2),
        lambda: mailbox.receive(timeout=0),
        lambda: mailbox.claim(timeout=0.1),
        lambda: mailbox.request(mailbox.name, 2, timeout=1),
        mailbox.message_count,
        mailbox.peek,
        lambda: mailbox.broadcast(2),
        bus.agents,
        bus.stats,
        lambda: bus.register("new"),
    )
    for call in calls:
        with pytest.raises(StoreError, match="emptied"):
            await call()


async def test_an_emptied_server_is_said_and_not_taken_for_an_empty_one(either: Server) -> None:
    namespace = space()
    async with bus_at(either, namespace, poll=0.1) as bus:
        mailbox = await bus.register("a")
        await mailbox.send("a", 1)
        held = await claimed(mailbox)
        handled = []

        async def handler(delivery: Delivery[AgentMessage]) -> None:
            handled.append(delivery.message.content)

        async with serving(mailbox, handler) as task:
            either.call("FLUSHALL")
            await says_it_is_lost(bus, mailbox)
            with pytest.raises(StoreError, match="emptied"):
                await held.ack()
            async with bus_at(either, namespace) as new:  # which makes it anew
                there = await new.register("a")
                await there.send("a", "new")
                await says_it_is_lost(bus, mailbox)
                assert await contents(there) == ["new"]
            assert not task.done()
        assert handled == []


@pytest.mark.parametrize("lost", ["emptied and cut off", "restarted"])
async def test_a_server_that_lost_its_data_is_not_taken_for_an_empty_one(
    tmp_path: Path, lost: str
) -> None:
    with Server(find("redis"), tmp_path, appendonly="no") as server:
        async with bus_at(server) as bus:
            mailbox = await bus.register("a")
            await mailbox.send("a", 1)
            if lost == "restarted":
                await asyncio.to_thread(server.restart)
            else:
                server.call("FLUSHALL")
                server.call("CLIENT", "KILL", "TYPE", "normal")
            with suppress(StoreError):  # the connection may be found lost only now
                await mailbox.receive(timeout=0)
            await says_it_is_lost(bus, mailbox)


async def test_a_full_server_takes_no_mail_but_lets_finish_what_was_begun(either: Server) -> None:
    async with bus_at(either) as bus:
        mailbox = await bus.register("a")
        for number in range(5):
            await mailbox.send("a", number)
        held = [await claimed(mailbox) for _ in range(4)]
        before = either.call("DBSIZE")
        either.call("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(StoreError, match="memory") as raised:
            await mailbox.send("a", "more", idempotency_key="k")
        assert raised.value.key == "k"
        assert either.call("DBSIZE") == before
        await held[0].ack()
        await held[1].reject("no")
        await held[2].extend(60)
        await held[3].give_back()

        either.call("CONFIG", "SET", "maxmemory", 0)
        await mailbox.send("a", "more", idempotency_key="k")
        assert await contents(mailbox) == [3, 4, "more"]
        stats = (await bus.stats())["a"]
        assert (stats.dead, stats.leased) == (1, 1)


async def test_a_full_server_can_be_emptied_by_its_consumers(either: Server) -> None:
    async with bus_at(either) as bus:
        mailbox = await bus.register("a")
        receipts = [await mailbox.send("a", number) for number in range(3)]
        either.call("HSET", "afk:{afk}:box:a", "seen", 0)  # nobody has asked for long
        either.call("CONFIG", "SET", "maxmemory", 1)
        first = await claimed(mailbox)
        await first.ack()
        assert await contents(mailbox) == [1, 2]
        assert await mailbox.receive(timeout=0.1) is None
        assert await receipts[0].settled(timeout=5) == "done"
        assert await receipts[2].settled(timeout=5) == "done"


async def test_a_full_server_lets_a_new_consumer_in(either: Server) -> None:
    async with bus_at(either) as bus:
        mailbox = await bus.register("a")
        await mailbox.send("a", 1)
    either.call("CONFIG", "SET", "maxmemory", 1)
    async with bus_at(either) as bus:
        mailbox = await bus.register("a")
        assert await contents(mailbox) == [1]
        with pytest.raises(StoreError, match="memory"):
            await bus.register("b")


async def test_who_waits_at_a_full_server_still_hears(server: Server) -> None:
    async with bus_at(server) as bus, bus_at(server) as other:
        mailbox = await bus.register("a")
        receipt = await mailbox.send("a", 1)
        held = await claimed(await other.register("a"))
        server.call("CONFIG", "SET", "maxmemory", 1)
        settled = asyncio.create_task(receipt.settled(timeout=5))
        waiting = asyncio.create_task(mailbox.receive(timeout=1))
        await asyncio.sleep(0.1)
        await held.give_back()
        async with asyncio.timeout(4):
            message = await waiting
            assert message is not None
            assert message.content == 1
            assert await settled == "done"


async def test_a_full_server_takes_no_message_from_its_handler(either: Server) -> None:
    async with bus_at(either) as bus, bus_at(either) as other:
        mailbox, same = await bus.register("a"), await other.register("a")
        await mailbox.send("a", 1)
        attempts = []

        async def handler(delivery: Delivery[AgentMessage]) -> None:
            attempts.append(delivery.attempt)
            either.call("CONFIG", "SET", "maxmemory", 1)
            assert await same.claim(timeout=2) is None

        async with serving(mailbox, handler, lease=0.6):

            async def done() -> bool:
                return either.call("ZCARD", "afk:{afk}:open:a") == 0

            await until(done, "it is settled", 10)
        assert attempts == [1]


async def test_a_full_server_ends_no_consumer(server: Server) -> None:
    async with bus_at(server, poll=0.1) as bus:
        mailbox = await bus.register("a")
        handled = []

        async def handler(delivery: Delivery[AgentMessage]) -> None:
            handled.append(delivery.message.content)

        async with serving(mailbox, handler):
            await mailbox.send("a", 1)
            await until(lambda: handled == [1], "it is at work")
            server.call("CONFIG", "SET", "maxmemory", 1)
            with pytest.raises(StoreError, match="memory"):
                await mailbox.send("a", 2)
            await asyncio.sleep(0.5)
            server.call("CONFIG", "SET", "maxmemory", 0)
            await mailbox.send("a", 3)
            await until(lambda: handled == [1, 3], "it goes on", 8)


async def test_a_replica_is_not_written_to_and_waited_for(server: Server) -> None:
    senders, consumers = bus_at(server, patience=1), bus_at(server, patience=1)
    async with senders, consumers, traffic(senders, consumers) as (accepted, handled, failures):
        await more(accepted)
        server.call("REPLICAOF", server.host, free_port())  # nobody there: it keeps what it has
        await until(lambda: len(failures) >= 2, "no call hangs", 5)
        assert all("replica" in str(error) or "unknown" in str(error) for error in failures)
        assert any("replica" in str(error) for error in failures)
        server.call("REPLICAOF", "NO", "ONE")
        await more(accepted)
        await more(handled)


async def test_a_server_with_too_few_replicas_is_waited_for(either: Server) -> None:
    async with bus_at(either, patience=1) as bus:
        mailbox = await bus.register("bob")
        either.call("CONFIG", "SET", "min-replicas-to-write", "1")
        with pytest.raises(StoreError, match=r"too few replicas.*nothing was stored"):
            await mailbox.send("bob", "lost")
        either.call("CONFIG", "SET", "min-replicas-to-write", "0")
        await mailbox.send("bob", "kept")
        assert await contents(mailbox) == ["kept"]


async def test_a_server_that_loads_its_data_is_waited_for(either: Server) -> None:
    async with bus_at(either) as bus:
        mailbox = await bus.register("a")
        await asyncio.gather(*(mailbox.send("a", number) for number in range(300)))
        with (either.folder / "server.conf").open("a") as settings:
            settings.write("key-load-delay 700\n")
        either.stop()
        starting = asyncio.create_task(asyncio.to_thread(either.start, 30))
        loading = 0

        async def answers() -> bool:
            nonlocal loading
            with suppress(OSError):
                fields = await asyncio.to_thread(either.call, "INFO", "persistence")
                loading += "loading:1" in fields
            return loading > 0

        await until(answers, "it loads", 10)
        assert not starting.done()
        sent = asyncio.create_task(mailbox.send("a", "after", priority="low"))
        count = asyncio.create_task(mailbox.message_count())
        await starting
        async with asyncio.timeout(5):
            await asyncio.gather(sent, count)
        found = await contents(mailbox)
        assert sorted(found[:-1]) == list(range(300))
        assert found[-1] == "after"


# -- answers that nobody waits for -------------------------------------------------------


class Slow:
    """Between a bus and its server: holds answers back while `open` is not set."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.open = asyncio.Event()
        self.open.set()
        self.held = 0
        self._pumps: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Slow:
        self._listening = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()
        for pump in self._pumps:
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps)

    def bus(self, **options: Any) -> MessageBus:
        return connect(f"redis://127.0.0.1:{self.port}", **options)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection(self._server.host, self._server.port)
        ways = [self._pump(reader, here, False), self._pump(there, writer, True)]
        pumps = [asyncio.create_task(way) for way in ways]
        self._pumps.update(pumps)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, answers: bool
    ) -> None:
        try:
            while data := await source.read(2**16):
                if answers and not self.open.is_set():
                    self.held += 1
                    await self.open.wait()
                sink.write(data)
        finally:
            sink.close()
            with suppress(OSError):
                await sink.wait_closed()


async def test_a_claim_cancelled_under_way_is_given_back_at_once(server: Server) -> None:
    async with Slow(server) as slow, slow.bus() as bus, bus_at(server) as other:
        mailbox = await bus.register("a")
        await mailbox.send("a", 1)
        slow.open.clear()
        for call in (mailbox.claim(timeout=5), mailbox.receive(timeout=5)):
            before = slow.held
            slow.open.clear()
            claiming = asyncio.create_task(call)
            await until(lambda before=before: slow.held > before, "its answer is under way")
            assert server.call("ZCARD", "afk:{afk}:due") == 1
            claiming.cancel()
            await asyncio.wait([claiming], timeout=1)
            assert claiming.cancelled()
            slow.open.set()
            there = await claimed(await other.register("a"), timeout=3)
            assert there.attempt == 1
            await there.give_back()
        again = await claimed(mailbox, timeout=3)
        assert (again.message.content, again.attempt) == (1, 1)


async def test_after_a_cancelled_claim_the_next_one_gets_the_same_message(server: Server) -> None:
    async with Slow(server) as slow, slow.bus() as bus:
        mailbox = await bus.register("a")
        for number in range(3):
            await mailbox.send("a", number)
        slow.open.clear()
        claiming = asyncio.create_task(mailbox.claim(timeout=5))
        await until(lambda: slow.held > 0, "its answer is under way")
        claiming.cancel()
        following = asyncio.create_task(claimed(mailbox, timeout=3))
        await asyncio.sleep(0.05)
        slow.open.set()
        delivery = await following
        assert (delivery.message.content, delivery.attempt) == (0, 1)


async def test_a_cancelled_send_is_there_once_or_not_at_all(server: Server) -> None:
    async with Slow(server) as slow, slow.bus() as bus:
        mailbox = await bus.register("a")
        slow.open.clear()
        sending = asyncio.create_task(mailbox.send("a", 1, idempotency_key="k"))
        await until(lambda: slow.held > 0, "its answer is under way")
        sending.cancel()
        await asyncio.wait([sending], timeout=1)
        assert sending.cancelled()
        slow.open.set()
        assert (await mailbox.send("a", 1, idempotency_key="k")).duplicate
        assert await contents(mailbox) == [1]


async def test_closing_waits_for_answers_as_long_as_the_patience_and_no_longer(
    server: Server,
) -> None:
    async with Slow(server) as slow:
        bus = slow.bus(patience=1)
        mailbox = await bus.register("a")
        slow.open.clear()
        sending = asyncio.create_task(mailbox.send("a", 1))
        waiting = asyncio.create_task(mailbox.receive())
        await until(lambda: slow.held > 0, "an answer is under way")
        async with asyncio.timeout(4):
            await bus.aclose()
            await asyncio.wait([sending, waiting])
        for task in (sending, waiting):
            assert isinstance(task.exception(), (StoreError, UsageError))


# -- processes, threads, wake-ups --------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_forked_child_cannot_use_the_bus(redis_server: Server) -> None:
    async with bus_at(redis_server, space()) as bus:
        mailbox = await bus.register("a")
        await mailbox.send("a", 1)
        store: Any = bus._core.store
        calls = [
            lambda: mailbox.send("a", 2),
            lambda: mailbox.receive(timeout=0),
            bus.agents,
            lambda: store.put((Turn(),)),
            store.agents,
        ]
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for call in calls:
                    with pytest.raises(UsageError):
                        asyncio.run(call())
                code = 0
            finally:
                os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert status == 0
        assert await contents(mailbox) == [1]


def keepers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("afk-redis")]


async def test_a_blocked_loop_keeps_its_message(redis_server: Server) -> None:
    namespace = space()
    lease = 0.6

    async def elsewhere() -> Any:
        async with bus_at(redis_server, namespace) as other:
            mailbox = await other.register("a")
            there.set()
            return await mailbox.claim(timeout=lease * 4)

    there = threading.Event()
    async with bus_at(redis_server, namespace) as bus:
        mailbox = await bus.register("a")
        await mailbox.send("a", 1)
        attempts = []
        waiting: list[asyncio.Task[Any]] = []

        async def handler(delivery: Delivery[AgentMessage]) -> None:
            attempts.append(delivery.attempt)
            waiting.append(asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere())))
            await until(there.is_set, "another waits")
            time.sleep(lease * 3)  # noqa: ASYNC251 - this is what is tested

        async with serving(mailbox, handler, lease=lease):
            await until(lambda: bool(waiting), "it is handled")
            assert await waiting[0] is None
        assert attempts == [1]
        assert keepers()
    assert not keepers()


async def test_nothing_is_left_of_a_closed_bus(server: Server) -> None:
    for _ in range(3):
        async with bus_at(server) as bus:
            mailbox = await bus.register("a")
            waiting = asyncio.create_task(mailbox.receive(timeout=0.05))
            await waiting
            await mailbox.send("a", 1)
            async with await claimed(mailbox):
                pass
    assert not keepers()

    async def alone() -> bool:
        lines = server.call("CLIENT", "LIST", "TYPE", "normal").splitlines()
        return len(lines) == 1

    await until(alone, "the server has no clients left")


async def test_a_bus_closed_while_its_server_is_gone_leaves_nothing(server: Server) -> None:
    bus = bus_at(server, patience=1)
    mailbox = await bus.register("a")
    await mailbox.send("a", 1)
    waiting = asyncio.create_task(mailbox.receive(timeout=30))
    await asyncio.sleep(0.05)
    async with bus_at(server) as other:
        holder = await other.register("b")
        await holder.send("b", 1)
        delivery = await claimed(holder)
        await delivery.hold(60)
        server.kill()
        async with asyncio.timeout(6):
            await bus.aclose()
            await asyncio.wait([waiting])
        began = time.monotonic()
    assert time.monotonic() - began < 6
    assert not keepers()


async def test_lost_wake_up_lists_cost_time_alone(redis_server: Server) -> None:
    namespace = space()
    ask = redis_server.call
    async with (
        bus_at(redis_server, namespace, poll=0.5) as bus,
        bus_at(redis_server, namespace) as other,
    ):
        mailbox = await bus.register("a")
        sender = await other.register("b")
        pattern = f"afk:{{{namespace}}}:"
        for number in range(3):
            waiting = asyncio.create_task(mailbox.receive(timeout=10))
            await until(lambda: bool(ask("KEYS", f"{pattern}ears:*")), "it waits")
            for key in (*ask("KEYS", f"{pattern}wake:*"), *ask("KEYS", f"{pattern}ears:*")):
                ask("DEL", key)
            await sender.send("a", number)
            async with asyncio.timeout(2):
                message = await waiting
            assert message is not None
            assert message.content == number


async def test_half_a_scripts_writes_deliver_nothing_again(redis_server: Server) -> None:
    """A server killed while it writes its file, and once more later, can have them."""
    namespace = space()
    ask = redis_server.call
    async with bus_at(redis_server, namespace) as bus:
        bob = await bus.register("bob")
        done = await bob.send("bob", 1)
        await (await claimed(bob)).ack()
        held = await bob.send("bob", 2)
        delivery = await claimed(bob)
        for message_id in (done.id, held.id, "nothing"):
            ask("RPUSH", f"afk:{{{namespace}}}:mail:bob:normal", message_id)
            ask("ZADD", f"afk:{{{namespace}}}:open:bob", 1, message_id)
        await bob.send("bob", 3)
        assert [(await claimed(bob)).message.content, await bob.claim(0)] == [3, None]
        await delivery.ack()
        await bus.unregister("bob")
        await bus.register("bob")
        assert (await bus.stats())["bob"].scheduled == 0


@asynccontextmanager
async def timed(
    server: Server, clock: Callable[[], float]
) -> AsyncIterator[tuple[MessageBus, str]]:
    """A bus that goes by this clock, and how its keys begin."""
    namespace = space()
    client = aioredis.Redis.from_url(server.url)
    store = RedisA2ADeliveryStore(client, namespace=namespace, clock=clock)
    async with MessageBus(store, retry=RetryPolicy(base=5, jitter="none")) as bus:
        yield bus, f"afk:{{{namespace}}}:"


async def test_half_a_claim_leaves_or_brings_back_what_it_took(redis_server: Server) -> None:
    """Cut behind its first write, its leases are known to end; behind the rows, the line has still
    the ids."""
    clock, ask = FakeClock(), redis_server.call
    async with timed(redis_server, clock) as (bus, keys):
        bob, ada = await bus.register("bob"), await bus.register("ada")
        sent = await bob.send("bob", 1)
        ask("ZADD", keys + "due", round(clock() * 1000), sent.id)
        ask("HSET", keys + "meta", "alarm", round(clock() * 1000))
        assert await ada.claim(0) is None
        assert ask("ZCARD", keys + "due") == 0
        assert (await claimed(bob, lease=10)).attempt == 1
        ask("RPUSH", keys + "mail:bob:normal", sent.id)
        clock.advance(16)
        again = await claimed(bob)
        assert (again.attempt, await bob.claim(0)) == (2, None)
        await again.ack()
        assert await sent.status() == "done"
        twice = await bob.send("bob", 2)
        ask("RPUSH", keys + "mail:bob:normal", twice.id)
        policy = RetryPolicy()
        batch = await bus._core.claim("bob", limit=5, lease=10, policy=policy)
        assert [leased.id for leased in batch] == [twice.id]


async def test_half_a_delayed_send_is_counted_no_more_once_unregistered(
    redis_server: Server,
) -> None:
    clock, ask = FakeClock(), redis_server.call
    async with timed(redis_server, clock) as (bus, keys):
        await bus.register("bob")
        for line in ("due", "later:bob", "open:bob"):
            ask("ZADD", keys + line, round(clock() * 1000), "nothing")
        await bus.unregister("bob")
        await bus.register("bob")
        stats = (await bus.stats())["bob"]
        assert (stats.scheduled, stats.leased) == (0, 0)


async def test_a_late_renewal_keeps_what_nobody_has_had_since(redis_server: Server) -> None:
    """Also where time has been let pass, and it waits for its next attempt."""
    clock = FakeClock()
    async with timed(redis_server, clock) as (bus, _):
        bob = await bus.register("bob")
        await bob.send("bob", 1)
        delivery = await claimed(bob, lease=10)
        message_id, fence = parse_token(delivery.token)
        store = bus._core.store
        assert isinstance(store, RedisA2ADeliveryStore)
        clock.advance(11)
        assert await bob.claim(0) is None
        assert (await bus.stats())["bob"].scheduled == 1
        _, lost = await store._here.ask("renew", message_id, fence, 10_000)
        assert lost == []
        assert (await bus.stats())["bob"].leased == 1
        clock.advance(9)
        assert await bob.claim(0) is None
        await delivery.ack()


async def test_a_clock_that_jumps_holds_up_nothing(redis_server: Server) -> None:
    """Who waits was told a time by the clock as it was."""
    ahead = 0.0
    async with timed(redis_server, lambda: time.time() + ahead) as (bus, keys):
        bob, ada = await bus.register("bob"), await bus.register("ada")
        await ada.send("ada", "later", delay=20)
        waiting = asyncio.create_task(bob.receive(timeout=20))
        await until(lambda: bool(redis_server.call("EXISTS", keys + "ears:mail:bob")), "it waits")
        ahead = 40.0
        await ada.send("bob", "soon", delay=0.2)
        async with asyncio.timeout(5):
            message = await waiting
        assert message is not None


async def test_time_passes_for_who_waits_elsewhere(server: Server) -> None:
    """What is due is told to one who waits in another process, even after a restart."""
    async with bus_at(server) as bus, bus_at(server) as other:
        mailbox = await bus.register("a")
        sender = await other.register("b")
        waiting = asyncio.create_task(mailbox.receive(timeout=20))
        await until(lambda: bool(server.call("EXISTS", "afk:{afk}:ears:mail:a")), "it waits")
        await sender.send("a", "later", delay=1.0)
        async with asyncio.timeout(3):
            message = await waiting
        assert message is not None

        waiting = asyncio.create_task(mailbox.receive(timeout=20))
        await until(lambda: bool(server.call("EXISTS", "afk:{afk}:ears:mail:a")), "it waits")
        await sender.send("a", "later", delay=1.5)
        await asyncio.to_thread(server.restart, kill=True)
        async with asyncio.timeout(5):
            message = await waiting
        assert message is not None


async def test_what_a_cancelled_claim_took_is_back_before_the_next_call(
    redis_server: Server,
) -> None:
    """However late it turns out that it took something."""
    namespace = space()
    with Proxy(HOST, redis_server.port) as proxy:
        url = redis_server.url.replace(f":{redis_server.port}", f":{proxy.port}")
        here, there = f"{url}?namespace={namespace}", f"{redis_server.url}?namespace={namespace}"
        async with connect(here) as bus, connect(there) as other:
            bob = await bus.register("bob")
            sent = await bob.send("bob", "hi")

            async def taken() -> bool:
                return await other.status(sent.id) == "leased"

            proxy.freeze(to_server=False)
            claiming = asyncio.create_task(bob.claim(5))
            await until(taken, "the claim got there")
            claiming.cancel()
            again = asyncio.create_task(bob.claim(0))
            await asyncio.sleep(0.05)
            proxy.heal()
            delivery = await again
            assert claiming.cancelled()
            assert delivery is not None
            assert delivery.attempt == 1
            await delivery.ack()
