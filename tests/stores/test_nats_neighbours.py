"""Many callers share a connection, a group and a store: one's trouble is nobody else's."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from afk.messaging import (
    AgentMessage,
    MessageBus,
    NATSA2ADeliveryStore,
    StoreError,
)
from afk.messaging.lifecycle import Extend
from afk.messaging.records import letter_record
from afk.messaging.sending import to_send
from afk.messaging.settings import Settings
from afk.messaging.store import Box, Claim, Turn
from afk.messaging.stores.nats.session import Session
from afk.messaging.testing.processes import say
from afk.messaging.testing.servers import NATS
from afk.messaging.testing.steps import until

from .over_nats import bus_at, elsewhere, link_of, same_state, space, store_of


def store_at(server: NATS, **options: Any) -> NATSA2ADeliveryStore:
    return NATSA2ADeliveryStore(server.url, namespace=space(), **options)


@pytest.fixture
async def store(nats_server: NATS) -> AsyncIterator[NATSA2ADeliveryStore]:
    store = store_at(nats_server)
    await store.open()
    yield store
    await store.close()


async def test_a_thousand_who_wait_cost_nothing(nats_server: NATS) -> None:
    async with MessageBus(store_at(nats_server)) as bus:
        boxes = await asyncio.gather(*(bus.register(f"a{number}") for number in range(1000)))
        waiting = [asyncio.create_task(box.receive(timeout=50)) for box in boxes]
        await asyncio.sleep(2.0)  # until all wait
        before = time.process_time()
        await asyncio.sleep(3.0)
        spent = time.process_time() - before
        print(f"{spent / 3.0:.2%} of a core")
        assert spent < 0.15
        await asyncio.gather(*(boxes[0].send(box.name, "go") for box in boxes))
        async with asyncio.timeout(20):
            assert all(await asyncio.gather(*waiting))


async def echo(bus: MessageBus) -> None:
    """In another process: sends back what it gets."""
    mailbox = await bus.register("echo")
    say()
    while (message := await mailbox.receive(timeout=30)) is not None:
        await mailbox.send("bob", message.content)


async def test_who_waits_in_another_process_wakes_at_once(nats_server: NATS) -> None:
    namespace = space()
    url = f"{nats_server.url}?namespace={namespace}"
    async with elsewhere(url, echo) as process, bus_at(nats_server.url, namespace) as bus:
        assert process is not None
        await process.line()
        mailbox = await bus.register("bob")
        times = []
        for number in range(40):
            began = time.perf_counter()
            await mailbox.send("echo", number)
            message = await mailbox.receive(timeout=10)
            assert message is not None
            assert message.content == number
            times.append(time.perf_counter() - began)
        median = statistics.median(times)
        print(f"there and back in {median * 1000:.1f} ms")
        assert median < 0.25


async def test_a_cancelled_send_disturbs_nobody_later(nats_server: NATS) -> None:
    async with MessageBus(store_at(nats_server, patience=5.0)) as bus:
        mailbox = await bus.register("bob")
        session = link_of(bus)._session
        for ticks in range(8):
            sending = asyncio.create_task(mailbox.send("bob", "perhaps"))
            for _ in range(ticks):
                await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait([sending])
        for _ in range(20):
            await mailbox.send("bob", "surely")
        assert not link_of(bus).lane.busy
        assert link_of(bus)._session is session


async def test_what_cannot_be_sent_fails_its_caller_alone(store: NATSA2ADeliveryStore) -> None:
    for _ in range(3):
        results = await asyncio.gather(
            store.bind(Box(name="bob")),
            store.unbind("\ud800"),  # which no name of an agent is
            store.unbind("eve"),
            store.claim(Claim(mailbox="", limit=0)),
            return_exceptions=True,
        )
        assert [isinstance(each, Exception) for each in results] == [False, True, False, False]
        assert isinstance(results[1], StoreError)
        assert "nothing was stored" in str(results[1])
        with pytest.raises(StoreError):
            await store.unbind("\ud800")


async def test_two_buses_over_one_store(nats_server: NATS) -> None:
    store = store_at(nats_server)
    async with MessageBus(store) as one:
        async with MessageBus(store) as two:
            mailbox, other = await one.register("bob"), await two.register("eve")
            waiting = asyncio.create_task(mailbox.receive(timeout=20))
            await other.send("bob", 1)
            assert await waiting is not None
        await mailbox.send("bob", 2)
        assert await mailbox.message_count() == 1


def test_two_loops_in_turn(nats_server: NATS) -> None:
    store = store_at(nats_server)

    async def once(number: int) -> None:
        async with MessageBus(store) as bus:
            mailbox = await bus.register("bob")
            await mailbox.send("bob", number, delay=0.05)
            message = await mailbox.receive(timeout=10)
            assert message is not None
            assert message.content == number

    for number in range(3):
        asyncio.run(once(number))


async def test_a_store_is_closed_and_opened_at_the_same_time(nats_server: NATS) -> None:
    before = asyncio.all_tasks()
    store = store_at(nats_server)
    for ticks in range(12):
        leaving, coming = MessageBus(store), MessageBus(store)
        await (await leaving.register("bob")).receive(timeout=0.01)
        closing = asyncio.create_task(leaving.aclose())
        for _ in range(ticks):
            await asyncio.sleep(0)
        mailbox = await coming.register("bob")
        await mailbox.send("bob", ticks)
        message = await mailbox.receive(timeout=5)
        assert message is not None
        assert message.content == ticks
        await closing
        await coming.aclose()
    await until(lambda: asyncio.all_tasks() <= before, "no task is left")


async def test_a_cancelled_opening_or_closing_leaves_nothing(nats_server: NATS) -> None:
    before = asyncio.all_tasks()
    for ticks in range(0, 40, 3):
        bus = MessageBus(store_at(nats_server))
        opening = asyncio.create_task(bus.register("bob"))
        for _ in range(ticks):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        await (await bus.register("bob")).receive(timeout=0.01)
        closing = asyncio.create_task(bus.aclose())
        for _ in range(ticks):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await bus.aclose()
    await until(lambda: asyncio.all_tasks() <= before, "no task is left")


async def test_edges_of_the_port_are_answered(store: NATSA2ADeliveryStore) -> None:
    await store.bind(Box(name="bob"))
    record = letter_record(AgentMessage("ada", "bob", "hi"))
    assert await store.put(()) == ()
    [verdict] = await store.put((Turn(sends=(to_send(record, Settings()),)),))
    assert verdict.refusal is None
    [leased] = (await store.claim(Claim(mailbox="bob"))).leased
    [verdict] = await store.put((Turn(token=leased.token),))
    assert verdict.refusal is None
    for token in (f"{record.id}.{2**70}", "", "no token", f"{record.id}.-1"):
        [verdict] = await store.put((Turn(token=token, outcome=Extend(1)),))
        assert verdict.refusal is not None
        assert verdict.refusal.kind == "lease_lost"


async def test_everyone_under_load_sees_the_same(nats_server: NATS) -> None:
    namespace = space()
    buses = [bus_at(nats_server.url, namespace) for _ in range(3)]

    async def busy(bus: MessageBus, name: str) -> None:
        mailbox = await bus.register(name)
        for number in range(60):
            await asyncio.gather(
                mailbox.send(name, number), bus.stats(), mailbox.receive(timeout=0), bus.agents()
            )

    async with buses[0], buses[1], buses[2], same_state(*buses):
        for bus in buses:
            await bus.agents()
        sessions = [link_of(bus)._session for bus in buses]
        await asyncio.gather(
            *(busy(bus, f"{name}{index}") for index, bus in enumerate(buses) for name in "xy")
        )
        assert [link_of(bus)._session for bus in buses] == sessions, "a connection was given up"


async def test_who_died_in_a_call_that_was_given_up_is_told_later(
    store: NATSA2ADeliveryStore,
) -> None:
    """A claim lets time pass for all; whoever asks next hears of it."""
    await store.bind(Box(name="bob"))
    record = letter_record(AgentMessage("ada", "bob", "hi"))
    await store.put((Turn(sends=(to_send(record, Settings(), ttl=0.3),)),))
    await asyncio.sleep(0.5)
    claiming = asyncio.create_task(store.claim(Claim(mailbox="bob")))
    for _ in range(4):
        await asyncio.sleep(0)
    assert store._here.link.lane._flight is not None
    claiming.cancel()
    await asyncio.wait([claiming])
    died: list[str] = []
    async with asyncio.timeout(5):
        while not died:
            died += (await store.claim(Claim(mailbox="bob"))).died
            await asyncio.sleep(0.01)
    assert died == [record.id]


# -- a process that hears late -------------------------------------------------------------


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The places whose processes hear 10 ms late of what is in the log."""
    places: list[Any] = []
    heard = Session._heard

    async def after_a_while(session: Any, message: Any) -> None:
        if any(session._place is place for place in places):
            await asyncio.sleep(0.01)
        await heard(session, message)

    monkeypatch.setattr(Session, "_heard", after_a_while)
    return places


async def test_who_waits_for_a_send_knows_of_its_mailbox(nats_server: NATS, late: Any) -> None:
    """Another process has registered it, which this one, told ahead of the mail, has not heard."""
    namespace = space()
    async with (
        bus_at(nats_server.url, namespace) as here,
        bus_at(nats_server.url, namespace) as there,
    ):
        ada = await here.register("ada")
        late.append(store_of(here)._here._place)
        for number in range(5):
            name = f"bob-{number}"
            await there.register(name)
            waiting = asyncio.create_task(here.mailbox(name).receive(timeout=5))
            await asyncio.sleep(0.001)
            await ada.send(name, "hi")
            message = await waiting
            assert message is not None
            assert message.content == "hi"


async def test_a_look_beside_a_send_finds_what_was_stored_before(
    nats_server: NATS, late: Any
) -> None:
    """It is another reader who is told ahead, and goes by that."""
    namespace = space()
    async with (
        bus_at(nats_server.url, namespace) as here,
        bus_at(nats_server.url, namespace) as there,
    ):
        ada, eve = await here.register("ada"), await there.register("eve")
        late.append(store_of(here)._here._place)
        for number in range(5):
            bob = await here.register(f"bob-{number}")
            waiting = asyncio.create_task(bob.receive(timeout=5))
            await asyncio.sleep(0.05)
            for content in ("first", "second", "third"):
                await eve.send(bob.name, content)
            looking = asyncio.create_task(bob.receive(timeout=0))
            await asyncio.sleep(0.0005)
            await ada.send(bob.name, "fourth")
            found, first = await asyncio.gather(looking, waiting)
            assert found is not None
            assert first is not None
            assert {found.content, first.content} == {"first", "second"}


async def test_who_was_told_ahead_and_left_costs_the_next_nothing(nats_server: NATS) -> None:
    """A reader that is cancelled as it is told, and a claim later, which writes nothing."""
    async with MessageBus(store_at(nats_server)) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        waiting = asyncio.create_task(bob.receive(timeout=5))
        await asyncio.sleep(0.05)
        sending = asyncio.create_task(ada.send("bob", "hi"))
        await asyncio.sleep(0)
        waiting.cancel()
        await sending
        await asyncio.wait([waiting])
        assert await bob.receive(timeout=1) is not None
        await asyncio.sleep(0.05)
        before = link_of(bus).replica.seq
        assert await bob.receive(timeout=0) is None
        assert link_of(bus).replica.seq == before
