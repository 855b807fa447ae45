"""Many at one database, and calls that nobody waits for any more: all is accounted for."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from afk.messaging import (
    AgentMailbox,
    AgentMessage,
    Delivery,
    MessageBus,
    RetryPolicy,
    UnknownAgentError,
    connect,
)
from afk.messaging.testing.processes import run, say
from afk.messaging.testing.servers import Postgres
from afk.messaging.testing.steps import AT_ONCE, PATIENCE, Effects, claimed, contents, until

NUMBER = 60
"""Messages of a test, or rounds."""
OFTEN = RetryPolicy(max_attempts=1000, base=0.0, jitter="none")


@pytest.fixture(params=["postgres15", "postgres18"])
def server(request: pytest.FixtureRequest) -> Postgres:
    """One of each kind: for what a server decides."""
    server: Postgres = request.getfixturevalue(request.param)
    return server


def url_of(server: Postgres, **options: object) -> str:
    """A namespace of the test's own."""
    query = {"namespace": uuid.uuid4().hex, **options}
    return f"{server.url}?{'&'.join(f'{name}={value}' for name, value in query.items())}"


def sessions(server: Postgres, name: str, which: str = "true") -> int:
    """How many sessions an application has."""
    where = f"application_name = '{name}' AND {which}"
    return int(server.psql(f"SELECT count(*) FROM pg_stat_activity WHERE {where}"))


# -- each other's way --------------------------------------------------------------------


async def test_transactions_in_each_others_way_are_tried_again(server: Postgres) -> None:
    """Keys stored in other orders by several processes, by sets and in turns: every send is stored
    once, and none fails."""
    url = url_of(server)
    buses = [connect(url) for _ in range(4)]
    keys = [f"k{number}" for number in range(100)]
    pens = [await bus.register("pen") for bus in buses]
    await pens[0].send("pen", "work")
    delivery = await claimed(pens[0])

    async def send_all(pen: AgentMailbox) -> None:
        order = random.sample(keys, len(keys))
        await asyncio.gather(*[pen.send("pen", key, idempotency_key=key) for key in order])

    try:
        async with delivery:
            for key in random.sample(keys, len(keys)):
                await delivery.send("pen", key, idempotency_key=key)
            await asyncio.gather(*map(send_all, pens), *map(send_all, pens))
        assert sorted(await contents(pens[0])) == sorted(keys)
    finally:
        for bus in buses:
            await bus.aclose()


async def one_by_one(bus: MessageBus, place: str) -> None:
    """In another process: handles what there is, and notes when each began and ended."""
    effects = Effects(place)
    connection = await asyncpg.connect(bus._core.store._here.place._dsn)  # type: ignore[attr-defined]
    lock = asyncio.Lock()

    async def note(text: str) -> None:
        async with lock:
            number = await connection.fetchval("SELECT nextval('afk_steps')")
            await effects.add(connection, f"{number:06} {text}")

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        content = delivery.message.content
        await note(f"begin {content}")
        await asyncio.sleep(random.random() * 0.005)
        await note(f"end {content}")
        if delivery.attempt == 1 and content.endswith("3"):
            raise ValueError("once more")

    mailbox = await bus.register("bob", ordered=True)
    say("ready")
    await mailbox.serve(handler, concurrency=8, retry=AT_ONCE)


async def test_a_thread_is_worked_on_by_one_at_a_time(server: Postgres) -> None:
    """Two processes at one ordered mailbox, while others send to it: no two messages of a thread
    are under way at once, and they come in order, whatever fails."""
    url = url_of(server)
    effects = Effects()
    connection = await asyncpg.connect(server.url)
    await effects.create(connection)
    await connection.execute("CREATE SEQUENCE IF NOT EXISTS afk_steps")
    place: Any = SimpleNamespace(url=url)
    async with connect(url) as bus:
        bob = await bus.register("bob", ordered=True)

        async def settled() -> bool:
            stats = (await bus.stats())["bob"]
            return not (stats.pending["all"] or stats.leased or stats.scheduled)

        async with (
            run(place, one_by_one, effects.name) as first,
            run(place, one_by_one, effects.name) as second,
        ):
            for process in (first, second):
                assert await process.line() == "ready"
            for number in range(NUMBER // 3):
                sends = [bob.send("bob", f"{t} {number}", thread_id=t) for t in "abc"]
                await asyncio.gather(*sends)
            await until(settled, "all is handled")
    steps = [row.split()[1:] for row in await effects.all(connection)]
    await connection.close()
    for thread in "abc":
        mine = [(what, int(number)) for what, name, number in steps if name == thread]
        assert [what for what, _ in mine] == ["begin", "end"] * (len(mine) // 2)
        assert [number for _, number in mine] == sorted(number for _, number in mine)
        assert {number for _, number in mine} == set(range(NUMBER // 3))


# -- nobody waits any more ---------------------------------------------------------------


@asynccontextmanager
async def left_in_order(server: Postgres, name: str) -> AsyncIterator[None]:
    """No session of the application is left when the block is, and no task."""
    before = asyncio.all_tasks()
    yield
    await until(lambda: sessions(server, name) == 0, "no session is left")
    assert asyncio.all_tasks() <= before


async def test_cancelled_transactions_leave_no_bad_connection(postgres18: Postgres) -> None:
    """Cancelled at random moments: effect and ack are both there or neither; no session is left
    in a transaction."""
    name, effects = f"app{uuid.uuid4().hex}", Effects()
    connection = await asyncpg.connect(postgres18.url)
    await effects.create(connection)
    done: list[str] = []
    bus = connect(url_of(postgres18, application_name=name), retry=OFTEN)
    async with left_in_order(postgres18, name), bus:
        bob = await bus.register("bob")

        async def turn(delivery: Delivery[AgentMessage]) -> None:
            async with delivery.transaction() as own:
                await effects.add(own, delivery.message.content)

        for number in range(NUMBER):
            await bob.send("bob", str(number))
            delivery = await claimed(bob, PATIENCE)
            task = asyncio.create_task(turn(delivery))
            await asyncio.sleep(random.random() * 0.01)
            task.cancel()
            await asyncio.wait([task])
            if await bus.status(delivery.message.id) == "done":
                done.append(delivery.message.content)
            else:
                await (await bob.resume(delivery.token)).reject()
        assert sessions(postgres18, name, "state LIKE 'idle in transaction%'") == 0
    assert await effects.all(connection) == sorted(done)
    await connection.close()


async def test_cancelled_sends_in_my_transaction(postgres18: Postgres) -> None:
    """The caller's connection is as usable as after a cancelled query of its own."""
    connection = await asyncpg.connect(postgres18.url)
    async with connect(url_of(postgres18)) as bus:
        bob = await bus.register("bob")
        for number in range(NUMBER // 2):
            transaction = connection.transaction()
            await transaction.start()
            sending = bus.deliver(AgentMessage("ann", "bob", number), connection=connection)
            task = asyncio.create_task(sending)
            await asyncio.sleep(random.random() * 0.006)
            task.cancel()
            await asyncio.wait([task])
            await transaction.rollback()
        async with connection.transaction():
            await bus.deliver(AgentMessage("ann", "bob", "held"), connection=connection)
        assert await contents(bob) == ["held"]
    await connection.close()


async def test_every_call_cancelled_at_random(postgres18: Postgres) -> None:
    """Under load: each message is received once, or waits; nothing is left behind."""
    name = f"app{uuid.uuid4().hex}"
    received: list[str] = []
    sent: set[str] = set()
    bus = connect(url_of(postgres18, application_name=name), retry=OFTEN)
    async with left_in_order(postgres18, name), bus:
        bob = await bus.register("bob")
        calls = _calls(bus, bob)

        async def worker(me: int) -> None:
            for number in range(NUMBER // 2):
                key = f"{me}-{number}"
                await cut(bob.send("bob", key, idempotency_key=key))
                await cut(random.choice(calls)())
                await bob.send("bob", key, idempotency_key=key)
                sent.add(key)
                if (message := await cut(bob.receive(timeout=0))) is not None:
                    received.append(message.content)

        await asyncio.gather(*map(worker, range(6)))

        async def nobody_has_any() -> bool:
            return not (await bus.stats())["bob"].leased

        await until(nobody_has_any, "what was claimed is back")
        received += await contents(bob)
        stats = (await bus.stats())["bob"]
        assert (stats.leased, stats.scheduled, stats.dead) == (0, 0, 0)
        assert len(received) == len(set(received)) == len(sent)
        await until(lambda: sessions(postgres18, name) <= 3, "no more than it needs")


def _calls(bus: MessageBus, bob: AgentMailbox) -> list[Callable[[], Awaitable[Any]]]:
    """Everything that leaves the sent messages as they are, in the end."""

    async def settle() -> None:
        delivery = await bob.claim(timeout=0)
        if delivery is not None:
            await asyncio.shield(delivery.nack("another time", delay=0))

    async def turn() -> None:
        async for delivery in bob.deliveries():
            await asyncio.shield(delivery.nack("another time", delay=0))

    return [
        *(bus.agents, bus.stats, bus.messages, bus.dead_letters, bob.peek, bob.message_count),
        lambda: bus.register(f"agent{random.randrange(5)}"),
        lambda: bus.unregister(f"agent{random.randrange(5)}"),
        lambda: bus.trace("x"),
        lambda: bus.cancel("nothing"),
        lambda: bus.redrive(agent="agent1"),
        lambda: bus.discard(agent="agent1"),
        lambda: bus.get("nothing"),
        lambda: bob.broadcast("all"),
        settle,
        turn,
    ]


async def cut(call: Awaitable[Any]) -> Any:
    """What it answers, if it does before it is cancelled."""
    task = asyncio.ensure_future(call)
    await asyncio.sleep(random.random() ** 2 * 0.02)
    task.cancel()
    await asyncio.wait([task])
    if task.cancelled() or isinstance(task.exception(), UnknownAgentError):
        return None
    return task.result()
