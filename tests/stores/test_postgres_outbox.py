"""Sends in the caller's own transaction: they hold when it commits, and never were if not."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from afk.messaging import (
    AgentMessage,
    IdempotencyConflictError,
    InternalA2AEnvelope,
    InternalA2AProtocol,
    MailboxFullError,
    MessageBus,
    PostgresMessageBus,
    UnknownAgentError,
    UsageError,
    connect,
)
from afk.messaging.store import OutboxStore, Send, Turn
from afk.messaging.testing.expect import raises
from afk.messaging.testing.servers import Postgres
from afk.messaging.testing.steps import claimed, contents, until


@pytest.fixture
def url(postgres18: Postgres) -> str:
    return postgres18.url


@pytest.fixture
async def bus(url: str) -> AsyncIterator[MessageBus]:
    async with PostgresMessageBus(url, namespace=uuid.uuid4().hex) as bus:
        await bus.register("ann")
        await bus.register("bob")
        yield bus


@pytest.fixture
async def conn(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


def letter(content: Any, to: str = "bob") -> AgentMessage:
    return AgentMessage("ann", to, content)


def envelope() -> InternalA2AEnvelope:
    return InternalA2AEnvelope(
        message_type="event",
        run_id="r",
        thread_id="t",
        conversation_id="c",
        correlation_id="x",
        idempotency_key=uuid.uuid4().hex,
        source_agent="ann",
        target_agent="bob",
        payload={"n": 1},
    )


async def mailbox(bus: MessageBus) -> Any:
    return await bus.register("bob")


async def test_it_is_sent_by_the_commit(bus: MessageBus, conn: Any) -> None:
    """Nobody sees it before; both of two sends, in their order; a receipt that holds."""
    bob = await mailbox(bus)
    async with conn.transaction():
        receipt = await bus.deliver(letter(1), connection=conn)
        await bus.deliver(letter(2), connection=conn)
        assert await bob.message_count() == 0
        assert await receipt.status() is None
    assert await receipt.status() == "pending"
    assert await contents(bob) == [1, 2]


async def test_it_never_was_when_rolled_back(bus: MessageBus, conn: Any) -> None:
    message = letter("never")
    transaction = conn.transaction()
    await transaction.start()
    receipt = await bus.deliver(message, connection=conn)
    await transaction.rollback()
    assert await receipt.status() is None
    assert not (await bus.deliver(message)).duplicate
    assert await contents(await mailbox(bus)) == ["never"]


@pytest.mark.parametrize("here", [True, False], ids=["here", "elsewhere"])
async def test_the_commit_wakes_who_waits(bus: MessageBus, conn: Any, url: str, here: bool) -> None:
    """In this process, and over another bus as in another process."""
    namespace = bus._core.store._here._namespace  # type: ignore[attr-defined]
    async with connect(f"{url}?namespace={namespace}") as other:
        bob = await (bus if here else other).register("bob")
        waiting = asyncio.create_task(bob.receive(timeout=20))
        await asyncio.sleep(0.5)
        async with conn.transaction():
            await bus.deliver(letter("now"), connection=conn)
            await asyncio.sleep(0.2)
            assert not waiting.done()
        async with asyncio.timeout(2.0):  # sooner than by looking every three seconds
            message = await waiting
        assert message is not None
        assert message.content == "now"


async def test_a_refusal_leaves_the_transaction_usable(bus: MessageBus, conn: Any) -> None:
    """Nobody of that name, no room, another body under the key: an error as always, no more."""
    await bus.register("tiny", capacity=1)
    sent = letter("first")
    await bus.deliver(sent)
    await bus.deliver(AgentMessage("ann", "tiny", 0, priority="urgent"))
    async with conn.transaction():
        await conn.execute("CREATE TEMP TABLE mine (n int) ON COMMIT PRESERVE ROWS")
        await conn.execute("INSERT INTO mine VALUES (1)")
        with pytest.raises(UnknownAgentError):
            await bus.deliver(letter("x", "nobody"), connection=conn)
        with pytest.raises(MailboxFullError):
            await bus.deliver(letter("x", "tiny"), connection=conn)
        other = AgentMessage("ann", "bob", "another", id=sent.id)
        with pytest.raises(IdempotencyConflictError):
            await bus.deliver(other, connection=conn)
        assert (await bus.deliver(sent, connection=conn)).duplicate
        await bus.deliver(letter("second"), connection=conn)
    assert await conn.fetchval("SELECT count(*) FROM mine") == 1
    assert await contents(await mailbox(bus)) == ["first", "second"]


async def test_inside_a_handlers_transaction(bus: MessageBus) -> None:
    """With the connection that `delivery.transaction()` gives, it is one step with the turn."""
    bob = await mailbox(bus)
    await bus.deliver(letter("work"))
    delivery = await claimed(bob, 5)
    with raises(ZeroDivisionError):
        async with delivery.transaction() as own:
            await bus.deliver(letter("undone"), connection=own)
            raise ZeroDivisionError
    async with delivery.transaction() as own:
        await bus.deliver(letter("done"), connection=own)
        await delivery.send("bob", "with it")
    assert sorted(await contents(bob)) == ["done", "with it"]


async def test_a_long_one_keeps_nobody_waiting(bus: MessageBus, conn: Any) -> None:
    """Other senders to the mailbox, and its consumers, go on beside an open transaction."""
    bob = await mailbox(bus)
    async with conn.transaction():
        await bus.deliver(letter("slow"), connection=conn)
        async with asyncio.timeout(5):
            for number in range(20):
                await bus.deliver(letter(number))
            assert await contents(bob) == list(range(20))
    assert await contents(bob) == ["slow"]


async def test_several_long_ones_keep_nobody_waiting(bus: MessageBus, url: str) -> None:
    """Nor each other: that all count what the mailbox holds is in nobody's way."""
    bob = await mailbox(bus)
    async with AsyncExitStack() as open_ones:
        for number in range(4):
            connection = await asyncpg.connect(url)
            open_ones.push_async_callback(connection.close)
            await open_ones.enter_async_context(connection.transaction())
            async with asyncio.timeout(5):
                await bus.deliver(letter(number), connection=connection)
                await bus.deliver(letter(f"beside {number}"))
        assert await contents(bob) == [f"beside {number}" for number in range(4)]
    assert await contents(bob) == [0, 1, 2, 3]


async def test_what_waits_for_one_holds_up_nobody_else(bus: MessageBus, conn: Any) -> None:
    """Another send under its key, and the end of the mailbox it sends to."""
    cy = await bus.register("cy")
    message = letter("held")
    async with conn.transaction():
        await bus.deliver(message, connection=conn)
        same = asyncio.create_task(bus.deliver(message))
        ending = asyncio.create_task(bus.unregister("bob"))
        await asyncio.sleep(0.3)
        for number in range(20):
            await cy.send("cy", number)
        assert await contents(cy) == list(range(20))
        assert not same.done()
        assert not ending.done()
    assert (await same).duplicate
    await ending
    assert [letter.reason for letter in await bus.dead_letters()] == ["unregistered"]


async def test_a_delayed_one_is_heard_of_in_time(bus: MessageBus, conn: Any) -> None:
    """Of the port; by who waits already, and would look for mail later than that."""
    bob = await mailbox(bus)
    delivery = asyncio.create_task(bob.claim(timeout=20))
    await asyncio.sleep(1.0)
    send = Send(body=b"{}", id=uuid.uuid4().hex, mailbox="bob", sender="ann", delay=0.5)
    store = bus._core.store
    assert isinstance(store, OutboxStore)
    async with conn.transaction():
        await store.put_within(conn, Turn(sends=(send,)))

    async def came() -> bool:
        return bool(await bus.dead_letters())  # its body is no message

    await until(came, "it is heard of", 1.5)
    delivery.cancel()


@pytest.mark.parametrize("level", ["repeatable_read", "serializable"])
async def test_a_transaction_that_sees_the_past(bus: MessageBus, conn: Any, level: str) -> None:
    """In it a thread's order, say, could not be kept: refused, with what to do."""
    async with conn.transaction(isolation=level):
        with pytest.raises(UsageError, match="isolation='read_committed'"):
            await bus.deliver(letter("x"), connection=conn)
        assert await conn.fetchval("SELECT 1") == 1
    assert await contents(await mailbox(bus)) == []


async def test_envelopes_too(bus: MessageBus, conn: Any) -> None:
    protocol = InternalA2AProtocol(bus)
    async with conn.transaction():
        await protocol.send(envelope(), connection=conn)
    assert await contents(await mailbox(bus)) == [{"n": 1}]


async def test_a_pools_connection(bus: MessageBus, url: str) -> None:
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
        async with pool.acquire() as conn, conn.transaction():
            await bus.deliver(letter("pooled"), connection=conn)
        assert await contents(await mailbox(bus)) == ["pooled"]


async def test_what_is_no_open_transaction(bus: MessageBus, conn: Any, url: str) -> None:
    """Said before anything is sent, with what to do."""
    closed = await asyncpg.connect(url)
    await closed.close()
    for connection in (conn, closed):
        with pytest.raises(UsageError, match="no transaction is open"):
            await bus.deliver(letter("x"), connection=connection)
    with sqlite3.connect(":memory:") as wrong, pytest.raises(UsageError, match="asyncpg"):
        await bus.deliver(letter("x"), connection=wrong)
    wrong.close()
    memory = connect("memory://")
    await memory.register("bob")
    with pytest.raises(UsageError, match="postgresql://"):
        await memory.deliver(letter("x"), connection=conn)
    await memory.aclose()
    assert await contents(await mailbox(bus)) == []


async def test_another_database(bus: MessageBus, postgres18: Postgres) -> None:
    """Also one that has a schema and a namespace of the same names."""
    name = f"other_{uuid.uuid4().hex}"
    postgres18.psql(f"CREATE DATABASE {name}")
    elsewhere = postgres18.url.rpartition("/")[0] + f"/{name}"
    namespace = bus._core.store._here._namespace  # type: ignore[attr-defined]
    connection = await asyncpg.connect(elsewhere)
    for prepared in (False, True):
        if prepared:
            async with connect(f"{elsewhere}?namespace={namespace}") as twin:
                await twin.register("bob")
        with pytest.raises(UsageError, match="another database"):
            async with connection.transaction():
                await bus.deliver(letter("x"), connection=connection)
    await connection.close()
