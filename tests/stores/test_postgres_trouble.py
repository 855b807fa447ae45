"""What goes wrong between a bus and its database, and how it ends."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from afk.messaging import (
    AgentMailbox,
    AgentMessage,
    Delivery,
    MessageBus,
    PostgresA2ADeliveryStore,
    StoreError,
    connect,
)
from afk.messaging.testing.servers import Postgres, find
from afk.messaging.testing.steps import AT_ONCE, PATIENCE, claimed, contents, serving, until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Postgres]:
    """A server that the test may damage."""
    with Postgres(find("postgres"), tmp_path / "server") as server:
        yield server


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
    """kill -9 of the server under load, twice: what was accepted is there, and handled."""
    url = url_of(server, patience=20)
    async with connect(url) as senders, connect(url) as consumers:
        async with traffic(senders, consumers) as (accepted, _, failures):
            for _ in range(2):
                count = len(accepted)
                await until(lambda count=count: len(accepted) > count + 20, "some are sent")
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
            count = len(accepted)
            await until(lambda: len(accepted) > count + 20, "it goes on")
        assert sum(failures) <= 4  # what was under way; what was not sent waited
        states = {row.state for row in await consumers.messages(agent="bob")}
        assert states <= {"done"}


async def test_a_server_that_stays_away_is_said(server: Postgres) -> None:
    """Calls fail after their patience, with a text that says that nothing was stored; then all
    works again."""
    async with connect(url_of(server, patience=0.5)) as bus:
        ada = await bus.register("ada")
        await asyncio.to_thread(server.kill)
        begin = time.monotonic()
        for call in (ada.send("ada", 1), ada.peek(), ada.claim(0)):
            error = await failure_of(call)
            assert error is not None
            assert str(server.port) in str(error)
        assert time.monotonic() - begin < 4
        await asyncio.to_thread(server.start)
        await send_until_sent(ada, "ada", 2, "k")
        assert await contents(ada) in ([2], [1, 2])


async def test_a_frozen_server_is_given_up(server: Postgres) -> None:
    """A server that does not answer: StoreError, outcome unknown; it goes on when that does."""
    async with connect(url_of(server, patience=0.5)) as bus:
        ada = await bus.register("ada")
        await ada.send("ada", 0)
        server.pause()
        try:
            error = await failure_of(ada.send("ada", 1, idempotency_key="k"))
        finally:
            server.resume()
        assert error is not None
        assert "outcome is unknown" in str(error)
        await send_until_sent(ada, "ada", 1, "k")
        assert await contents(ada) == [0, 1]


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
                count = len(accepted)
                await until(lambda count=count: len(accepted) > count + 5, "some are sent")
                await terminate(server)
        cy, don = await senders.register("cy"), await consumers.register("don")
        waiting = asyncio.create_task(don.receive(timeout=PATIENCE))
        await asyncio.sleep(1.0)  # the ears are back
        begin = time.monotonic()
        await send_until_sent(cy, "don", "hi", "k")
        message = await waiting
        assert message is not None
        assert time.monotonic() - begin < 1.0


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


# -- each other's way --------------------------------------------------------------------


async def test_transactions_in_each_others_way_are_tried_again(server: Postgres) -> None:
    """Keys stored in opposite orders by several processes, and a user's locks: every send is
    stored once, and none fails."""
    url = url_of(server)
    buses = [connect(url) for _ in range(4)]
    try:
        pens = [await bus.register("pen") for bus in buses]
        keys = [f"k{number}" for number in range(200)]

        async def send_all(pen: AgentMailbox, order: list[str]) -> None:
            await asyncio.gather(*[pen.send("pen", key, idempotency_key=key) for key in order])

        for _ in range(3):
            orders = [random.sample(keys, len(keys)) for _ in pens]
            await asyncio.gather(*[send_all(*each) for each in zip(pens, orders, strict=True)])
        assert sorted(await contents(pens[0])) == sorted(keys)
    finally:
        for bus in buses:
            await bus.aclose()


async def test_a_long_transaction_holds_up_nobody_else(server: Postgres) -> None:
    """A user's open transaction holds a key: who sends under that key waits, the others do not."""
    connection = await asyncpg.connect(server.url)
    async with connect(url_of(server)) as bus:
        ada = await bus.register("ada")
        message = AgentMessage("ada", "ada", "held")
        transaction = connection.transaction()
        await transaction.start()
        await bus.deliver(message, connection=connection)
        same = asyncio.create_task(bus.deliver(message))
        await asyncio.sleep(0.1)
        for number in range(5):
            await ada.send("ada", number)
        assert not same.done()
        assert await contents(ada) == [0, 1, 2, 3, 4]
        await transaction.commit()
        assert (await same).duplicate
        assert await contents(ada) == ["held"]
    await connection.close()


# -- cancelled ---------------------------------------------------------------------------


async def test_cancelled_transactions_leave_no_bad_connection(server: Postgres) -> None:
    """Cancelled at random moments: effect and ack are both there or neither; no session is left
    in a transaction."""
    store = PostgresA2ADeliveryStore(server.url, namespace=uuid.uuid4().hex)
    await asyncio.to_thread(server.psql, "CREATE TABLE effects (n int)")
    done: set[int] = set()
    async with MessageBus(store, retry=AT_ONCE) as bus:
        bob = await bus.register("bob")

        async def turn(delivery: Delivery[AgentMessage]) -> None:
            async with delivery.transaction() as connection:
                await connection.execute(
                    "INSERT INTO effects VALUES ($1)", delivery.message.content
                )

        for number in range(60):
            await bob.send("bob", number)
            delivery = await claimed(bob, PATIENCE)
            task = asyncio.create_task(turn(delivery))
            await asyncio.sleep(random.random() * 0.01)
            task.cancel()
            await asyncio.wait([task])
            if await bus.status(delivery.message.id) == "done":
                done.add(number)
            else:
                await (await bob.resume(delivery.token)).reject()
        idle = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
        assert await asyncio.to_thread(server.psql, idle) == "0"
    rows = (await asyncio.to_thread(server.psql, "SELECT n FROM effects ORDER BY n")).split()
    assert [int(row) for row in rows] == sorted(done)
