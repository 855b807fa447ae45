"""The scenes of a mailbox that is read."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

from afk.messaging import Delivery

from ..stage import LEASE, Call, Stage
from .registry import look, scene

look("Mailbox.peek", lambda stage, _: stage.bob.mailbox.peek(5))
look("Mailbox.message_count", lambda stage, _: stage.bob.mailbox.message_count())


@scene("Mailbox.receive")
async def _receive(stage: Stage) -> Call:
    await stage.mail()
    return lambda: stage.received(partial(stage.bob.mailbox.receive, LEASE / 2))


@scene("Mailbox.claim")
async def _claim(stage: Stage) -> Call:
    await stage.mail()
    return lambda: stage.claimed(partial(stage.bob.mailbox.claim, LEASE / 2, lease=LEASE))


@scene("Mailbox.deliveries")
async def _deliveries(stage: Stage) -> Call:
    await stage.mail()

    async def first() -> Delivery[Any]:
        deliveries = stage.bob.mailbox.deliveries(lease=LEASE)
        try:
            return await anext(deliveries)
        finally:
            await deliveries.aclose()

    return lambda: stage.claimed(first)


@scene("Mailbox.resume")
async def _resume(stage: Stage) -> Call:
    delivery = await stage.held()

    async def resume() -> None:
        stage.hands.append(await stage.bob.mailbox.resume(delivery.token))

    return resume


@scene("Mailbox.serve")
async def _serve(stage: Stage) -> Call:
    """Until the message is done. What is handled is acked, even by one who is cancelled."""
    receipt = await stage.mail()

    async def work(delivery: Delivery[Any]) -> None:
        await asyncio.sleep(0)

    async def serve() -> None:
        handler = stage.bob.handler(work, lease=LEASE)
        serving = asyncio.create_task(stage.bob.mailbox.serve(handler, concurrency=2))
        stage.tasks.append(asyncio.create_task(_ends(serving)))
        try:
            await receipt.settled(LEASE / 2)
        finally:
            serving.cancel()

    return serve


async def _ends(task: asyncio.Task[None]) -> None:
    with suppress(asyncio.CancelledError):
        await task
