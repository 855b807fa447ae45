"""Through PgBouncer in transaction mode: every transaction may be on another connection."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from afk.messaging import AgentMessage, Delivery, connect
from afk.messaging.testing.servers import PgBouncer, Postgres, find
from afk.messaging.testing.steps import Effects, claimed, contents, serving, until


def url_of(pool: PgBouncer, **options: object) -> str:
    query = {"namespace": uuid.uuid4().hex, **options}
    return f"{pool.url}?{'&'.join(f'{name}={value}' for name, value in query.items())}"


async def test_who_waits_elsewhere_looks_for_mail(
    pgbouncer: PgBouncer, caplog: pytest.LogCaptureFixture
) -> None:
    """No notification comes through; that is said once, and a look finds the mail."""
    caplog.set_level(logging.INFO, "afk.messaging")
    url = url_of(pgbouncer)
    async with connect(url) as sender, connect(url) as consumer:
        ada, bob = await sender.register("ada"), await consumer.register("bob")
        waiting = asyncio.create_task(bob.receive(timeout=20))
        await asyncio.sleep(1.2)
        await ada.send("bob", "found")
        began = time.monotonic()
        message = await waiting
        assert message is not None
        assert message.content == "found"
        assert time.monotonic() - began < 3
    said = [record for record in caplog.records if "connection pooler" in record.getMessage()]
    assert len(said) == 1


async def test_transactions_and_the_outbox(pgbouncer: PgBouncer) -> None:
    """A handler's effect with its turn, and a send in the caller's transaction."""
    effects = Effects()
    async with connect(url_of(pgbouncer)) as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "work")
        async with (await claimed(bob, 5)).transaction() as conn:
            await effects.create(conn)
            await effects.add(conn, "done")
        connection = await asyncpg.connect(pgbouncer.url, statement_cache_size=0)
        assert await effects.all(connection) == ["done"]
        async with connection.transaction():
            await bus.deliver(AgentMessage("ann", "bob", "outbox"), connection=connection)
        await connection.close()
        assert await contents(bob) == ["outbox"]


async def test_a_blocked_loop_keeps_its_lease(pgbouncer: PgBouncer) -> None:
    url = url_of(pgbouncer)
    async with connect(url) as bus, connect(url) as other:
        bob, rival = await bus.register("bob"), await other.register("bob")
        await bob.send("bob", "work")
        attempts = []

        async def handler(delivery: Delivery[AgentMessage]) -> None:
            attempts.append(delivery.attempt)
            time.sleep(3.6)  # noqa: ASYNC251 - that is the point
            assert await rival.claim(timeout=0) is None

        async with serving(bob, handler, lease=1.5):
            await until(lambda: bool(attempts), "it began")

            async def settled() -> bool:
                return not await bob.message_count() and not (await bus.stats())["bob"].leased

            await until(settled, "it was handled")
        assert attempts == [1]


@pytest.fixture
def own_pool(postgres15: Postgres, tmp_path: Path) -> Iterator[PgBouncer]:
    with PgBouncer(find("pgbouncer"), tmp_path / "pool", postgres15) as pool:
        yield pool


async def test_a_restarted_pooler_loses_nothing(own_pool: PgBouncer) -> None:
    """Killed under load, and back: what was accepted is there, and all goes on."""
    async with connect(url_of(own_pool, patience=20)) as bus:
        bob = await bus.register("bob")
        handled: list[int] = []

        async def handler(delivery: Delivery[AgentMessage]) -> None:
            handled.append(delivery.message.content)

        async def send(number: int) -> None:
            while True:
                try:
                    await bob.send("bob", number, idempotency_key=f"k{number}")
                except Exception:  # noqa: BLE001 - sent again under its key
                    await asyncio.sleep(0.05)
                else:
                    return

        async with serving(bob, handler, concurrency=10, lease=1.0):
            for number in range(200):
                if number in (50, 120):
                    await asyncio.to_thread(own_pool.restart, kill=True)
                await send(number)
            await until(lambda: len(set(handled)) == 200, "all was handled", 30)


async def test_a_loop_blocked_in_a_transaction_holds_up_no_other_process(
    pgbouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a pooler a call takes several steps: the server ends what is left in the middle."""
    url = url_of(pgbouncer)
    fetch = asyncpg.Connection.fetch
    loop = asyncio.get_running_loop()
    elsewhere: list[threading.Thread] = []
    waited: list[float] = []

    async def send_elsewhere() -> None:
        async with connect(url) as other:
            began = time.monotonic()
            await other.mailbox("cy").send("bob", "theirs", thread_id="t")
            waited.append(time.monotonic() - began)

    async def fetch_and_block(connection: Any, query: str, *args: Any) -> Any:
        rows = await fetch(connection, query, *args)
        if asyncio.get_running_loop() is loop and "mine" in str(args) and not elsewhere:
            elsewhere.append(threading.Thread(target=asyncio.run, args=(send_elsewhere(),)))
            elsewhere[0].start()
            time.sleep(8)  # noqa: ASYNC251 - that is the point
        return rows

    async with connect(url) as bus:
        bob = await bus.register("bob", ordered=True)
        await bus.register("cy")
        monkeypatch.setattr(asyncpg.Connection, "fetch", fetch_and_block)
        await bob.send("bob", "mine", thread_id="t")
        await asyncio.to_thread(elsewhere[0].join)
        assert waited[0] < 6
        for content in ("theirs", "mine"):
            async with await claimed(bob, 20) as delivery:
                assert delivery.message.content == content
