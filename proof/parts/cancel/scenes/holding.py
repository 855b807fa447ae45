"""The scenes of a delivery: a message is held."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from afk.messaging import Delivery

from ..stage import LEASE, Call, Stage
from .registry import scene


def settle(of: str, outcome: str, verb: Callable[[Delivery[Any]], Any]) -> None:
    """The scene of a call that settles, with something to send."""

    @scene(of)
    async def _settles(stage: Stage) -> Call:
        delivery = await stage.held()
        await stage.bob.onward(delivery, "end", delivery.message.content)
        return lambda: stage.settled(delivery, outcome, partial(verb, delivery))


def once(call: Call) -> Call:
    """A block is entered and left once, cancelled or not."""
    left = iter([call])

    async def again() -> None:
        for each in left:
            await each()

    return again


settle("Delivery.ack", "done", Delivery.ack)
settle("Delivery.nack", "again", lambda delivery: delivery.nack("no"))
settle("Delivery.reject", "dead", lambda delivery: delivery.reject("no"))
settle("Delivery.retry", "again", Delivery.retry)
settle("Delivery.give_back", "back", Delivery.give_back)
settle("Delivery.extend", "extend", lambda delivery: delivery.extend(LEASE))
settle("Delivery.hold", "extend", lambda delivery: delivery.hold(LEASE))


@scene("Delivery.send")
async def _send(stage: Stage) -> Call:
    """Nothing leaves before the ack."""
    delivery = await stage.held()
    return lambda: stage.bob.onward(delivery, "end", delivery.message.content)


@scene("Delivery.reply")
async def _reply(stage: Stage) -> Call:
    """To one who has not asked: mail for the oracle."""
    delivery = await stage.held()
    return lambda: delivery.reply("an answer", recipient="oracle")


@scene("Delivery.request")
async def _request(stage: Stage) -> Call:
    delivery = await stage.held()
    number = stage.number()

    async def ask() -> None:
        answer = await delivery.request("oracle", number, timeout=LEASE / 2)
        assert answer.content == [number], "an answer to another question"

    return ask


@scene("Delivery.transaction")
async def _transaction(stage: Stage) -> Call | None:
    """What is sent in it leaves with its end."""
    if not stage.bus.capabilities.transactions:
        return None
    delivery = await stage.held()

    async def turn() -> None:
        async with delivery.transaction():
            await stage.bob.onward(delivery, "end", delivery.message.content)
            await asyncio.sleep(0)

    return lambda: stage.settled(delivery, "done", turn)


@scene("Delivery.__aenter__")
async def _enter(stage: Stage) -> Call:
    """Cancelled, it gives back."""
    delivery = await stage.held()
    stage.doubt(delivery, "back")
    return once(delivery.__aenter__)


@scene("Delivery.__aexit__")
async def _exit(stage: Stage) -> Call:
    """Acked; cancelled meanwhile, given back unless it is acked."""
    delivery = await stage.held()
    await delivery.__aenter__()
    await stage.bob.onward(delivery, "end", delivery.message.content)
    stage.doubt(delivery, "back")
    stage.doubt(delivery, "done")
    return once(partial(delivery.__aexit__, None, None, None))
