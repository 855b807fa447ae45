"""The scenes of a store's verbs, called as a bus calls them."""

from __future__ import annotations

from typing import Any

from afk.messaging import AgentMessage
from afk.messaging.lifecycle import GIVE_BACK
from afk.messaging.records import letter_record
from afk.messaging.sending import to_send
from afk.messaging.settings import Settings
from afk.messaging.store import Box, Claim, Query, Send, Turn

from ..stage import LEASE, Call, Stage
from .registry import look, scene


def _store(stage: Stage) -> Any:
    return stage.bus._core.store


look("A2ADeliveryStore.agents", lambda stage, _: _store(stage).agents())
look("A2ADeliveryStore.counts", lambda stage, _: _store(stage).counts("bob"))
look("A2ADeliveryStore.browse", lambda stage, name: _store(stage).browse(Query(ids=(name,))))


@scene("A2ADeliveryStore.open")
async def _open(stage: Stage) -> Call:
    """Each that ended is matched by a close."""
    store = stage.other()._core.store

    async def once() -> None:
        await store.open()
        stage.beside(store.close())

    return once


@scene("A2ADeliveryStore.close")
async def _close(stage: Stage) -> Call:
    store = stage.other()._core.store
    await store.open()
    return store.close


@scene("A2ADeliveryStore.bind")
async def _bind(stage: Stage) -> Call:
    box = Box(name=f"new-{stage.number()}")
    return lambda: _store(stage).bind(box)


@scene("A2ADeliveryStore.unbind")
async def _unbind(stage: Stage) -> Call:
    name = f"old-{stage.number()}"
    await stage.bus.register(name)
    await stage.mail(name)
    return lambda: _store(stage).unbind(name)


@scene("A2ADeliveryStore.put")
async def _put(stage: Stage) -> Call:
    content, send = _message(stage)

    async def put() -> Any:
        [verdict] = await _store(stage).put((Turn(sends=(send,)),))
        return verdict.accepted

    return lambda: stage.sent(["bob"], content, send.id, put)


@scene("A2ADeliveryStore.claim")
async def _claim(stage: Stage) -> Call:
    """What it takes is given back at once."""
    await stage.mail()

    async def claim() -> None:
        batch = await _store(stage).claim(Claim(mailbox="bob", lease=LEASE))
        turns = tuple(Turn(token=each.token, outcome=GIVE_BACK) for each in batch.leased)
        if turns:
            stage.beside(_store(stage).put(turns))

    return claim


@scene("A2ADeliveryStore.amend")
async def _amend(stage: Stage) -> Call:
    receipt = await stage.mail()
    return lambda: _store(stage).amend("cancel", (receipt.id,), None)


@scene("A2ADeliveryStore.begin")
async def _begin(stage: Stage) -> Call | None:
    """What has begun is undone at once."""
    if not stage.bus.capabilities.transactions:
        return None

    async def begin() -> None:
        transaction = await _store(stage).begin()
        stage.beside(transaction.rollback())

    return begin


@scene("A2ADeliveryStore.put_within")
async def _put_within(stage: Stage) -> Call | None:
    """In a transaction of ours. The connection of a cancelled one is not to be used again: asyncpg
    does not know whether a BEGIN that was cancelled has begun."""
    if not stage.bus.capabilities.outbox:
        return None
    import asyncpg

    content, send = _message(stage)
    free = [await asyncpg.connect(stage.url.partition("?")[0]) for _ in range(2)]
    stage.ends += [each.close for each in free]

    async def put() -> Any:
        connection = free.pop()
        async with connection.transaction():
            verdict = await _store(stage).put_within(connection, Turn(sends=(send,)))
        return verdict.accepted

    return lambda: stage.sent(["bob"], content, send.id, put)


def _message(stage: Stage) -> tuple[Any, Send]:
    """Its content, and the order to keep it."""
    message = AgentMessage("ada", "bob", {"key": stage.number()})
    return message.content, to_send(letter_record(message), Settings())
