"""What goes wrong between the event loop, the writer thread and other programs, and how it ends."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from afk.messaging import (
    AgentMailbox,
    AgentMessage,
    Delivery,
    MessageBus,
    SQLiteA2ADeliveryStore,
    SQLiteMessageBus,
    StoreError,
)
from afk.messaging.stores.sqlite.engine import GROUP
from afk.messaging.stores.sqlite.writer import Writer
from afk.messaging.testing.steps import serving, until


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("afk-sqlite")]


async def claimed(mailbox: AgentMailbox) -> Delivery[AgentMessage]:
    delivery = await mailbox.claim(timeout=5)
    assert delivery is not None
    return delivery


async def test_a_claim_that_was_given_up_is_undone_when_it_lands(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    async with SQLiteMessageBus(path, patience=0.3) as bus:
        mailbox = await bus.register("a")
        await mailbox.send("a", 1)
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")  # another program, which does not know the lock file
        asyncio.get_running_loop().call_later(1.0, other.execute, "COMMIT")
        with pytest.raises(StoreError, match="unknown"):
            await mailbox.claim(timeout=0)
        await asyncio.sleep(1.0)
        again = await claimed(mailbox)
        assert again.attempt == 1
        other.close()


async def test_a_cancelled_opening_leaves_no_thread(tmp_path: Path) -> None:
    before = writers()
    for _ in range(3):
        bus = SQLiteMessageBus(tmp_path / "mail.db")
        opening = asyncio.create_task(bus.register("a"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        await bus.aclose()
    assert writers() == before


async def test_a_cursor_kept_from_a_transaction_harms_nobody(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    async with SQLiteMessageBus(path) as here, SQLiteMessageBus(path) as there:
        mailbox = await here.register("a")
        for number in range(3):
            await mailbox.send("a", number)
        async with await claimed(mailbox) as delivery, delivery.transaction() as db:
            kept = db.execute("SELECT id FROM afk_delivery")
            assert kept.fetchone()  # and left open: it pins what the connection sees
        await (await there.register("b")).send("a", "from elsewhere")
        assert (await claimed(mailbox)).message.content == 1


async def test_a_renewal_that_fails_after_a_session_does_not_stop_the_store(
    tmp_path: Path, monkeypatch
) -> None:
    async with SQLiteMessageBus(tmp_path / "mail.db") as bus:
        mailbox = await bus.register("a")
        await mailbox.send("a", 1)
        writer = bus._core.store._engine.writer
        real = writer._together

        def fail_once(group, writes):
            if not group:
                monkeypatch.undo()
                raise sqlite3.OperationalError("disk I/O error")
            return real(group, writes)

        async with await claimed(mailbox) as delivery, delivery.transaction():
            monkeypatch.setattr(writer, "_together", fail_once)
        assert delivery.settled
        await mailbox.send("a", 2)
        assert await mailbox.message_count() == 1


async def test_a_file_that_cannot_be_opened_for_a_while_is_no_end_of_serving(
    tmp_path: Path, monkeypatch
) -> None:
    """A disk that fails and does not let the file be opened anew: what may pass is a StoreError."""
    place, away = tmp_path / "here", tmp_path / "away"
    place.mkdir()
    handled = asyncio.Queue[object]()

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        await handled.put(delivery.message.content)

    async with SQLiteMessageBus(place / "mail.db") as bus:
        mailbox = await bus.register("a")
        writer = bus._core.store._engine.writer
        real = writer._together

        def fail_once(group, writes):
            if group:
                monkeypatch.undo()
                place.rename(away)
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                raise error
            return real(group, writes)

        async with serving(mailbox, handler):
            monkeypatch.setattr(writer, "_together", fail_once)
            for _ in range(3):
                with pytest.raises(StoreError, match="cannot be opened"):
                    await mailbox.send("a", "too early", idempotency_key="k")
            away.rename(place)
            assert not (await mailbox.send("a", "in time", idempotency_key="k")).duplicate
            async with asyncio.timeout(20):
                assert await handled.get() == "in time"


async def test_what_is_overdue_elsewhere_keeps_nobody_busy(tmp_path: Path) -> None:
    store = SQLiteA2ADeliveryStore(tmp_path / "mail.db")
    await store.open()
    engine = store._engine
    submitted = 0
    real = engine._submit

    def counted(*arguments, **options):
        nonlocal submitted
        submitted += 1
        return real(*arguments, **options)

    async with MessageBus(store) as bus:
        lost, idle = await bus.register("lost"), await bus.register("idle")
        await lost.send("lost", 1)
        await claimed(lost)
        await lost.send("lost", 2, delay=0.1)
        await lost.send("lost", 3, ttl=0.1)
        engine._submit = counted
        assert await idle.receive(timeout=0.6) is None
        assert submitted < 20
    await store.close()


async def test_a_long_thread_ends_at_once_without_end(tmp_path: Path) -> None:
    async with SQLiteMessageBus(tmp_path / "mail.db", durability="process") as bus:
        mailbox = await bus.register("a", ordered=True)
        await asyncio.gather(*(mailbox.send("a", n, thread_id="t", ttl=0.5) for n in range(600)))

        async def dead() -> bool:
            return (await bus.stats())["a"].dead == 600

        await until(dead, "all have expired")
        async with await _sent(mailbox) as delivery, delivery.transaction() as db:
            assert db.execute("SELECT open FROM afk_mailbox").fetchone() == (1,)
            assert db.execute("SELECT ended FROM afk_space").fetchone() == (600,)


async def _sent(mailbox: AgentMailbox) -> Delivery[AgentMessage]:
    await mailbox.send(mailbox.name, "last")
    return await claimed(mailbox)


async def test_a_blocked_event_loop_is_no_file_that_does_not_answer(tmp_path: Path) -> None:
    """What was asked for right before the loop was blocked has its patience after that."""
    async with SQLiteMessageBus(tmp_path / "mail.db", patience=0.2) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for ticks in range(5):
            sending = asyncio.create_task(ada.send("bob", ticks))
            for _ in range(ticks):
                await asyncio.sleep(0)
            time.sleep(0.4)  # noqa: ASYNC251 - the point of it
            await sending
            assert (await claimed(bob)).message.content == ticks


async def test_a_transaction_is_of_so_many_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ask at once: others wait for it, and old rows must be let go of in time."""
    sizes = []
    together = Writer._together

    def noted(writer: Writer, group: list[Any], writes: bool) -> Any:
        sizes.append(len(group))
        return together(writer, group, writes)

    monkeypatch.setattr(Writer, "_together", noted)
    many = 3 * GROUP
    path = tmp_path / "mail.db"
    options = {"durability": "process", "history": 0.0, "retention": 0.0}
    async with SQLiteMessageBus(path, **options) as bus:  # type: ignore[arg-type]
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for _ in range(3):
            await asyncio.gather(*(ada.send("bob", number) for number in range(many)))
            await asyncio.gather(*(bob.receive(timeout=5) for _ in range(many)))
        await bus.status("")  # after the acks
        with sqlite3.connect(path) as db:
            [kept] = db.execute("SELECT count(*) FROM afk_delivery").fetchone()
    assert max(sizes) == GROUP
    assert kept <= 2 * many
