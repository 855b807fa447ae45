"""Somebody blocks the event loop: what was asked for meanwhile is answered, not lost."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from afk.messaging import AgentMailbox, RequestTimeoutError, connect
from afk.messaging.testing.servers import NATS, PgBouncer, Postgres, Server
from afk.messaging.testing.steps import claimed


@pytest.fixture
async def mailboxes(
    redis_server: Server,
    postgres18: Postgres,
    pgbouncer: PgBouncer,
    nats_server: NATS,
    tmp_path: Path,
) -> AsyncIterator[list[AgentMailbox]]:
    """One on each store that another process can hold up, which it may do for a second and a half;
    there is a mailbox `nobody` beside it."""
    servers = (redis_server, postgres18, pgbouncer, nats_server)
    places = [f"sqlite:///{tmp_path}/mail.db", *(server.url for server in servers)]
    for place in places:  # the first one to come to a server waits the longest
        async with connect(place):
            pass
    async with AsyncExitStack() as stack:
        buses = [
            await stack.enter_async_context(
                connect(f"{place}?namespace={uuid.uuid4().hex}&patience=1.5")
            )
            for place in places
        ]
        for bus in buses:
            await bus.register("nobody")
        yield [await bus.register("bob") for bus in buses]


async def block(ticks: int) -> None:
    """After so many ticks, for longer than anything waits."""
    for _ in range(ticks):
        await asyncio.sleep(0)
    time.sleep(1.8)  # noqa: ASYNC251 - the point of it


@pytest.mark.parametrize("ticks", [1, 4])
async def test_what_is_asked_right_before_is_answered(
    mailboxes: list[AgentMailbox], ticks: int
) -> None:
    """However late: neither the store's patience nor a deadline counts what it could not read."""
    for number in range(2):  # the second time a timer of the first is still set
        async with asyncio.TaskGroup() as tasks:
            for bob in mailboxes:
                tasks.create_task(bob.send("bob", number))
            await block(ticks)
        async with asyncio.TaskGroup() as tasks:
            claims = [tasks.create_task(bob.claim(timeout=0)) for bob in mailboxes]
            looks = [tasks.create_task(bob.peek()) for bob in mailboxes]
            await block(ticks)
        assert all(len(look.result()) <= 1 for look in looks)
        for bob, claim in zip(mailboxes, claims, strict=True):
            delivery = claim.result() or await claimed(bob)
            assert delivery.message.content == number
            await delivery.ack()


async def test_who_waits_meanwhile_has_waited(mailboxes: list[AgentMailbox]) -> None:
    """A wait whose end passes while the loop is blocked ends as if it were not."""

    async def ask(bob: AgentMailbox) -> None:
        with pytest.raises(RequestTimeoutError):
            await bob.request("nobody", "is anyone there?", timeout=0.5)

    async with asyncio.TaskGroup() as tasks:
        for bob in mailboxes:
            tasks.create_task(ask(bob))
        claims = [tasks.create_task(bob.claim(timeout=0.5)) for bob in mailboxes]
        mails = [tasks.create_task(bob.receive(timeout=0.5)) for bob in mailboxes]
        await asyncio.sleep(0.3)
        await block(0)
    assert [task.result() for task in claims + mails] == [None] * 10
