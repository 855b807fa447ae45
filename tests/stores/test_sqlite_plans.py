"""How SQLite goes about what the store asks: never through all there is, to find or sort a few."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from pathlib import Path

import pytest

from afk.messaging import AgentMailbox, MessageBus, SQLiteMessageBus
from afk.messaging.stores.sqlite import file

WIDE = re.compile(r"afk_by_id \(space=\?\)$|^SCAN afk_delivery$|TEMP B-TREE FOR ORDER BY")
"""A search by the namespace alone; a scan that is in no order; a sort."""
EXCEPT = ("count(*)", "d.id IN (")
"""What has to count reads what it counts; few that are named may be sorted."""


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> dict[str, None]:
    """Every statement that a store in this test runs, once."""
    seen: dict[str, None] = {}
    connect = file.connect

    def traced(path: Path, synchronous: str) -> sqlite3.Connection:
        db = connect(path, synchronous)
        db.set_trace_callback(seen.setdefault)
        return db

    monkeypatch.setattr(file, "connect", traced)
    return seen


async def everything(bus: MessageBus) -> None:
    """All that a bus can do with messages."""
    ada, bob = await bus.register("ada"), await bus.register("bob")
    tidy = await bus.register("tidy", ordered=True)
    serving = asyncio.create_task(bob.serve(answer))
    known = await ada.request("bob", "?", idempotency_key="k")
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    for box in (bob, tidy):
        await settled(ada, box)
    late = await ada.send("bob", "later", delay=100)
    await ada.broadcast("all")
    for call in (
        bus.get(known.id),
        bus.status(known.id),
        bus.trace(known.id),
        bus.cancel(late.id),
        bus.redrive(agent="bob"),
        bus.discard(agent="tidy"),
        bus.messages(limit=5),
        bus.messages(agent="bob", limit=5),
        bus.messages(state="dead", limit=5),
        bus.dead_letters(limit=5),
        bus.dead_letters("bob", limit=5),
        bus.stats(),
        bob.peek(5),
        bob.message_count(),
        bob.claim(0),
        tidy.claim(0.01),
        bus.unregister("bob"),
    ):
        await call


async def answer(_: object) -> str:
    return "!"


async def settled(ada: AgentMailbox, box: AgentMailbox) -> None:
    """In each way."""
    for how in ("ack", "nack", "reject", "give_back"):
        await ada.send(box.name, how, thread_id=how, ttl=50)
        delivery = await box.claim()
        assert delivery is not None
        await getattr(delivery, how)()


async def test_no_statement_reads_more_than_it_needs(
    tmp_path: Path, statements: dict[str, None]
) -> None:
    place = tmp_path / "team.db"
    async with SQLiteMessageBus(place) as bus:
        await everything(bus)
    with sqlite3.connect(place) as db:
        wide = {
            sql: plan
            for sql in statements
            if "afk_delivery" in sql and not sql.startswith(("CREATE", "DROP", "--"))
            if not any(each in sql for each in EXCEPT)
            if (plan := [step for step in plan_of(db, sql) if WIDE.search(step)])
        }
    db.close()
    assert not wide


def plan_of(db: sqlite3.Connection, sql: str) -> list[str]:
    return [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")]
