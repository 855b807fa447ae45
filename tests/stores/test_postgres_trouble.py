"""What goes wrong between a bus and its database, and how it ends."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from afk.messaging import (
    AgentMailbox,
    AgentMessage,
    Delivery,
    MessageBus,
    StoreError,
    connect,
)
from afk.messaging.testing.processes import Process, hear, run, say
from afk.messaging.testing.servers import Postgres, find
from afk.messaging.testing.steps import AT_ONCE, PATIENCE, claimed, contents, serving, until


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server that these tests may damage, and nobody else uses."""
    with Postgres(find("postgres"), tmp_path_factory.mktemp("server")) as one:
        yield one


@pytest.fixture
def server(one: Postgres) -> Postgres:
    """The same, at work, whatever the last test left."""
    if not one.running:
        one.start()
    return one


def url_of(server: Postgres, **options: object) -> str:
    """A namespace of the test's own."""
    query = {"namespace": uuid.uuid4().hex, **options}
    return f"{server.url}?{'&'.join(f'{name}={value}' for name, value in query.items())}"


async def failure_of(call: Awaitable[Any]) -> StoreError | None:
    """How the store failed, if it did."""
    try:
        await call
    except StoreError as error:
        return error
    return None


async def send_until_sent(mailbox: AgentMailbox, to: str, content: Any, key: str) -> int:
    """Repeat a send under its key until it is known to be stored; how often that failed."""
    failures = 0
    while error := await failure_of(mailbox.send(to, content, idempotency_key=key)):
        assert error.key == key
        failures += 1
        await asyncio.sleep(0.01)
    return failures


async def consumer(bus: MessageBus) -> None:
    """In another process: says what it handles, until it is told to end; then nothing more."""
    mailbox = await bus.register("bob")

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        say(delivery.message.content)

    async with serving(mailbox, handler, retry=AT_ONCE, lease=1.0, concurrency=4):
        await asyncio.to_thread(hear)
    say(None)


@asynccontextmanager
async def elsewhere(url: str, handled: list[str]) -> AsyncIterator[None]:
    """A consumer in another process; what it handles is added."""

    async def listen(process: Process) -> None:
        while (content := await process.line()) is not None:
            handled.append(content)

    place: Any = SimpleNamespace(url=url)
    async with run(place, consumer) as process:
        listening = asyncio.create_task(listen(process))
        yield
        assert not listening.done(), "it has ended, or is silent"
        await process.tell()
        await listening


@asynccontextmanager
async def traffic(
    senders: MessageBus, consumers: MessageBus
) -> AsyncIterator[tuple[list[str], list[str], list[int]]]:
    """Two senders and a consumer; (accepted, handled, failures). When the block is left, all that
    was accepted has been handled."""
    accepted: list[str] = []
    handled: list[str] = []
    failures: list[int] = []
    stop = asyncio.Event()
    mailbox = await consumers.register("bob")

    async def sender(name: str) -> None:
        ann = await senders.register(name)
        number = 0
        while not stop.is_set():
            content = f"{name}-{number}"
            failures.append(await send_until_sent(ann, "bob", content, content))
            accepted.append(content)
            number += 1
            await asyncio.sleep(0.001)

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        handled.append(delivery.message.content)

    async with serving(mailbox, handler, retry=AT_ONCE, lease=1.0, concurrency=4):
        sending = [asyncio.create_task(sender(name)) for name in ("ann", "ada")]
        yield accepted, handled, failures
        stop.set()
        await asyncio.gather(*sending)
        await until(lambda: set(accepted) <= set(handled), "all is handled")


async def more(things: list[Any], number: int) -> None:
    """Wait until there are so many more of them."""
    enough = len(things) + number
    await until(lambda: len(things) >= enough, f"{number} more")


async def terminate(server: Postgres, which: str = "true") -> int:
    """End the sessions of others, as an administrator does; how many."""
    answer = await asyncio.to_thread(
        server.psql,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'postgres'"
        f" AND pid <> pg_backend_pid() AND {which}",
    )
    return int(answer)


# -- the server goes and comes -----------------------------------------------------------


async def test_a_killed_server_loses_nothing_accepted(server: Postgres) -> None:
    """kill -9 of the server under load, twice: what was accepted is there, and handled; consumers
    here and in another process go on."""
    url = url_of(server, patience=20)
    there: list[str] = []
    async with connect(url) as senders, connect(url) as consumers:
        async with traffic(senders, consumers) as (accepted, here, failures):
            async with elsewhere(url, there):
                for _ in range(2):
                    await asyncio.gather(more(here, 5), more(there, 5))
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
                await asyncio.gather(more(here, 5), more(there, 5))
            here.extend(there)
        assert sum(failures) <= 4  # what was under way; what was not sent waited
        entries = await consumers.messages(agent="bob", limit=100_000)
        assert len(entries) == len(accepted)
        assert {entry.state for entry in entries} == {"done"}


async def test_a_server_that_stays_away_is_said(server: Postgres) -> None:
    """Calls fail after their patience, with a text that says that nothing was stored; then all
    works again."""
    async with connect(url_of(server, patience=0.5)) as bus:
        ada = await bus.register("ada")
        await asyncio.to_thread(server.kill)
        begin = time.monotonic()
        for call in (ada.send("ada", 1), ada.peek(), ada.claim(5)):
            error = await failure_of(call)
            assert error is not None
            assert str(server.port) in str(error)
        assert time.monotonic() - begin < 3 * 1.5 + 2
        await asyncio.to_thread(server.start)
        await send_until_sent(ada, "ada", 2, "k")
        assert await contents(ada) in ([2], [1, 2])


async def test_a_frozen_server_is_given_up(server: Postgres) -> None:
    """A server that does not answer: StoreError, outcome unknown; it goes on when that does, and a
    bus can be closed meanwhile."""
    async with connect(url_of(server, patience=0.5)) as bus:
        ada = await bus.register("ada")
        await ada.send("ada", 0)
        closing = connect(url_of(server))
        waiting = asyncio.create_task((await closing.register("cy")).receive(timeout=PATIENCE))
        await asyncio.sleep(0.5)
        server.pause()
        try:
            error = await failure_of(ada.send("ada", 1, idempotency_key="k"))
            async with asyncio.timeout(10):
                await closing.aclose()
        finally:
            server.resume()
        waiting.cancel()
        assert error is not None
        assert "outcome is unknown" in str(error)
        await send_until_sent(ada, "ada", 1, "k")
        assert await contents(ada) == [0, 1]


async def test_a_server_that_hesitates_is_waited_for(server: Postgres) -> None:
    """Frozen for less than the patience: nothing fails, and nothing comes twice."""
    url = url_of(server)
    async with connect(url) as senders, connect(url) as consumers:
        async with traffic(senders, consumers) as (accepted, handled, failures):
            for _ in range(2):
                await more(accepted, 5)
                server.pause()
                await asyncio.sleep(0.6)  # of a lease of a second
                server.resume()
        assert not sum(failures)
        assert sorted(handled) == sorted(accepted)


async def test_an_emptied_database_is_refused(server: Postgres) -> None:
    """A database that has lost the namespace under a running process is not served as a new one."""
    async with connect(url_of(server, patience=0.5)) as bus:
        ada = await bus.register("ada")
        await asyncio.to_thread(server.psql, "DROP SCHEMA afk CASCADE")
        assert await failure_of(ada.send("ada", 1)) is not None
        await terminate(server)
        await asyncio.sleep(0.1)
        error = await failure_of(ada.send("ada", 1))
        assert error is not None
        assert "lost this namespace" in str(error)


# -- connections end ---------------------------------------------------------------------


async def test_terminated_connections_are_made_anew(server: Postgres) -> None:
    """An administrator ends all sessions, again and again: nothing accepted is lost, and who waits
    in another process is woken as before."""
    url = url_of(server)
    async with connect(url) as senders, connect(url) as consumers:
        async with traffic(senders, consumers) as (accepted, _, _):
            for _ in range(5):
                await more(accepted, 5)
                await terminate(server)
        cy, don = await senders.register("cy"), await consumers.register("don")
        waiting = asyncio.create_task(don.receive(timeout=PATIENCE))
        await asyncio.sleep(1.0)  # the ears are back
        begin = time.monotonic()
        await send_until_sent(cy, "don", "hi", "k")
        message = await waiting
        assert message is not None
        assert time.monotonic() - begin < 1.0


async def test_a_connection_lost_while_a_call_is_prepared_is_made_anew(
    server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two steps of the driver: nothing was asked for yet, so nothing fails, at once."""
    look_up, lost = asyncpg.Connection._introspect_types, []

    async def lose_first(connection: Any, *args: Any) -> Any:
        if not lost:
            lost.append(await terminate(server))
            await until(connection.is_closed, "the driver notices")
            connection.terminate()
        return await look_up(connection, *args)

    async with connect(url_of(server)) as bus:
        ada = await bus.register("ada")
        monkeypatch.setattr(asyncpg.Connection, "_introspect_types", lose_first)
        begin = time.monotonic()
        await ada.send("ada", "hi")
        assert lost
        assert time.monotonic() - begin < 5.0


async def test_what_is_sent_after_an_outage_is_heard_of_at_once(server: Postgres) -> None:
    """A process that could not tell others of its mail for a while tells them again soon."""
    url = url_of(server)
    async with connect(url) as sender, connect(url) as consumer:
        ann, bob = await sender.register("ann"), await consumer.register("bob")
        ears = sender._core.store._here.ears
        tell = ears._tell

        async def silence(*_: str) -> None:
            ears._tell = tell
            await asyncio.sleep(0.8)
            raise StoreError("the server is away")

        ears._tell = silence
        await ann.send("bob", "lost")
        await until(lambda: ears._tell is tell, "others are told")
        await contents(bob)
        await asyncio.sleep(2.0)  # more than it took, by far
        waits = []
        for number in range(3):
            waiting = asyncio.create_task(bob.receive(timeout=PATIENCE))
            await asyncio.sleep(0.1)
            begin = time.monotonic()
            await ann.send("bob", number)
            assert await waiting is not None
            waits.append(time.monotonic() - begin)
        assert sorted(waits)[1] < 1.0


async def test_what_only_looks_is_asked_again(server: Postgres) -> None:
    """Over connections that are ended under it: no call fails that changes nothing."""
    async with connect(url_of(server)) as bus:
        ada = await bus.register("ada")
        await ada.send("ada", "here")
        looks: list[Callable[[], Awaitable[Any]]] = [
            *(bus.agents, bus.stats, bus.messages, ada.peek, ada.message_count),
            partial(bus.register, "ada"),
        ]

        async def look(number: int) -> None:
            while not ended.is_set():
                assert await looks[number % len(looks)]()

        ended = asyncio.Event()
        looking = [asyncio.create_task(look(number)) for number in range(12)]
        for _ in range(4):
            await asyncio.sleep(0.2)
            await terminate(server)
        ended.set()
        await asyncio.gather(*looking)


async def test_a_lost_listener_costs_latency_only(server: Postgres) -> None:
    """The session that listens is ended, and cannot come back in time: a look finds the mail."""
    url = url_of(server)
    async with connect(url) as sender, connect(url) as consumer:
        ann, bob = await sender.register("ann"), await consumer.register("bob")
        waiting = asyncio.create_task(bob.receive(timeout=PATIENCE))
        await asyncio.sleep(0.3)
        assert await terminate(server, "query ILIKE 'LISTEN%'") == 1
        await ann.send("bob", "hi")
        message = await waiting
        assert message is not None


async def test_a_blocked_loop_keeps_its_lease(server: Postgres) -> None:
    """Renewed from the keeper's thread, whose session may be ended too."""
    url = url_of(server)
    async with connect(url) as bus, connect(url) as other:
        bob, rival = await bus.register("bob"), await other.register("bob")
        await bob.send("bob", "work")
        delivery = await claimed(bob, lease=1.0)
        async with delivery:
            time.sleep(1.2)  # noqa: ASYNC251 - blocked is what it is
            await terminate(server, "query ILIKE '%renew%'")
            time.sleep(1.5)  # noqa: ASYNC251
            assert await rival.claim(0) is None
