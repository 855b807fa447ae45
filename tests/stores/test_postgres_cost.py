"""What a call reads, in rows: as much whatever else is stored."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import pytest

from afk.messaging import AgentMessage, MessageBus, Receipt, connect
from afk.messaging.testing.servers import Postgres
from afk.messaging.testing.steps import AT_ONCE, PATIENCE, claimed, serving, until

STORED = 400
"""Messages of each kind: waiting, scheduled, done, dead."""
MOST = 100
"""Messages that a call may read; opening and closing the bus included."""
FOLLOW = 200
"""Messages that follow each other in one session."""
MOST_EACH = 20
"""How often one of them may be read until it is done or dead."""

Call = Callable[[MessageBus, str], Awaitable[object]]
"""With the id of one that waits."""


async def settle(bus: MessageBus, how: str, *seconds: float) -> None:
    delivery = await claimed(bus.mailbox("bob"), PATIENCE)
    await getattr(delivery, how)(*seconds)


async def ask(bus: MessageBus) -> None:
    """Of an agent with nothing else to do."""
    async with serving(bus.mailbox("idle"), answer):
        await bus.mailbox("ada").request("idle", "?")


async def answer(_: object) -> str:
    return "!"


CALLS: dict[str, Call] = {
    "send": lambda bus, _: bus.mailbox("ada").send("bob", "hi"),
    "send under a key": lambda bus, _: bus.mailbox("ada").send("bob", "hi", idempotency_key="k"),
    "send in a thread": lambda bus, _: bus.mailbox("ada").send("bob", "hi", thread_id="t"),
    "broadcast": lambda bus, _: bus.mailbox("ada").broadcast("hi"),
    "ack": lambda bus, _: settle(bus, "ack"),
    "nack": lambda bus, _: settle(bus, "nack"),
    "reject": lambda bus, _: settle(bus, "reject"),
    "extend": lambda bus, _: settle(bus, "extend", 60.0),
    "ask": lambda bus, _: ask(bus),
    "claim nothing": lambda bus, _: bus.mailbox("idle").claim(0),
    "get": lambda bus, known: bus.get(known),
    "status": lambda bus, known: bus.status(known),
    "trace": lambda bus, known: bus.trace(known),
    "cancel": lambda bus, known: bus.cancel(known),
    "redrive": lambda bus, known: bus.redrive(known),
    "discard": lambda bus, known: bus.discard(known),
    "messages": lambda bus, _: bus.messages(limit=5),
    "dead letters": lambda bus, _: bus.dead_letters(limit=5),
}


async def fill(bus: MessageBus) -> str:
    """Of each kind so many; the id of one that waits."""
    ada = await bus.register("ada")
    for name in ("bob", "old", "idle"):
        await bus.register(name)

    async def many(recipient: str, **options: float) -> list[Receipt[AgentMessage]]:
        return await asyncio.gather(
            *(ada.send(recipient, "hi", **options) for _ in range(STORED))  # type: ignore[arg-type]
        )

    waiting = await many("bob")
    await many("bob", delay=1000.0)
    await many("old")
    while await bus.mailbox("old").receive(0) is not None:
        pass
    await many("idle", ttl=0.001)
    assert await bus.mailbox("idle").claim(0) is None
    assert (await bus.stats())["idle"].dead == STORED
    return waiting[STORED // 2].id


@pytest.fixture(params=["postgres15", "postgres18"])
def server(request: pytest.FixtureRequest) -> Postgres:
    """They plan differently."""
    server: Postgres = request.getfixturevalue(request.param)
    return server


@pytest.mark.parametrize("analyzed", ["before", "never"])
async def test_a_call_reads_what_it_needs(server: Postgres, analyzed: str) -> None:
    """The planner knows nothing of a namespace so young, and must use the right index all the same.

    Analyzed before, the table has others' rows, so this namespace counts as almost empty.
    """
    me = "t" + uuid.uuid4().hex
    url = f"{server.url}?schema={me}&application_name={me}"
    if analyzed == "before":
        async with connect(f"{url}&namespace=others") as bus:
            await fill(bus)
        server.psql(f"ANALYZE {me}.delivery")
    async with connect(url) as bus:
        known = await fill(bus)
    too_many = {}
    for name, call in CALLS.items():
        before = await read(server, me)
        async with connect(url) as bus:
            await call(bus, known)
        if (rows := await read(server, me) - before) > MOST:
            too_many[name] = rows
    assert not too_many


async def keyed(bus: MessageBus) -> None:
    """Each twice."""
    for number in range(FOLLOW):
        for _ in range(2):
            await bus.mailbox("ada").send("bob", "hi", idempotency_key=str(number))


async def threaded(bus: MessageBus) -> None:
    """In order."""
    mailbox = await bus.register("ordered", ordered=True)
    for number in range(FOLLOW):
        await bus.mailbox("ada").send("ordered", "hi", thread_id=str(number % 20))
    for _ in range(FOLLOW):
        async with await claimed(mailbox, PATIENCE):
            pass


async def failed(bus: MessageBus) -> None:
    """Now and then for good."""
    for _ in range(FOLLOW):
        await bus.mailbox("ada").send("bob", "hi")
        await settle(bus, "nack")
        await settle(bus, "reject")


async def asked(bus: MessageBus) -> None:
    """One after the other."""
    async with serving(bus.mailbox("bob"), answer):
        for _ in range(FOLLOW):
            await bus.mailbox("ada").request("bob", "?")


async def late(bus: MessageBus) -> None:
    """And redriven."""
    await asyncio.gather(*[bus.mailbox("ada").send("bob", "hi", ttl=0.001) for _ in range(FOLLOW)])
    assert await bus.mailbox("bob").claim(0) is None
    for letter in await bus.dead_letters(limit=FOLLOW):
        await bus.redrive(letter.id)


FLOWS = (keyed, threaded, failed, asked, late)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.__name__)
async def test_a_message_is_read_a_few_times(
    server: Postgres, flow: Callable[[MessageBus], Awaitable[None]]
) -> None:
    """Of the first ones, too: the plans are made when the table is empty, and many more follow."""
    me = "t" + uuid.uuid4().hex
    async with connect(f"{server.url}?schema={me}&application_name={me}", retry=AT_ONCE) as bus:
        for name in ("ada", "bob"):
            await bus.register(name)
        await flow(bus)
    assert await read(server, me) < MOST_EACH * FOLLOW


async def read(server: Postgres, application: str) -> int:
    """Messages that were read so far; a session says so as it ends, which is waited for."""

    def ended() -> bool:
        where = f"application_name = '{application}'"
        return server.psql(f"SELECT count(*) FROM pg_stat_activity WHERE {where}") == "0"

    await until(ended, "all sessions have ended")
    return int(
        server.psql(
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables"
            f" WHERE schemaname = '{application}' AND relname = 'delivery'"
        )
    )
