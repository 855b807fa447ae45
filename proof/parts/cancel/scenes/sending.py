"""The scenes of sending, and of what a receipt tells."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from afk.messaging import (
    AgentMessage,
    InternalA2AEnvelope,
    InternalA2AProtocol,
    Receipt,
    RequestTimeoutError,
)

from ..stage import LEASE, Call, Stage
from .registry import scene


@scene("Mailbox.send")
async def _send(stage: Stage) -> Call:
    key = f"k{stage.number()}"
    return lambda: stage.ada.send("bob", {"key": key}, key=key)


@scene("Mailbox.broadcast")
async def _broadcast_of_a_mailbox(stage: Stage) -> Call:
    """Under a key of its own, which each copy has."""
    key = f"k{stage.number()}"

    broadcast = partial(stage.ada.mailbox.broadcast, {"key": key}, idempotency_key=key)
    others = await _others(stage)
    return lambda: stage.sent(others, {"key": key}, key, broadcast)


@scene("MessageBus.broadcast")
async def _broadcast(stage: Stage) -> Call:
    message = AgentMessage("ada", "*", {"key": stage.number()})
    broadcast = partial(stage.bus.broadcast, message)
    others = await _others(stage)
    return lambda: stage.sent(others, message.content, message.id, broadcast)


@scene("MessageBus.deliver")
async def _deliver(stage: Stage) -> Call:
    message = AgentMessage("ada", "bob", {"key": stage.number()})
    deliver = partial(_alone, stage.bus.deliver, message)
    return lambda: stage.sent(["bob"], message.content, message.id, deliver)


@scene("InternalA2AProtocol.send")
async def _send_envelope(stage: Stage) -> Call:
    envelope = _envelope(stage, "bob")
    send = partial(_alone, InternalA2AProtocol(stage.bus).send, envelope)
    return lambda: stage.sent(["bob"], envelope.payload, envelope.idempotency_key, send)


@scene("InternalA2AProtocol.request")
async def _request_envelope(stage: Stage) -> Call:
    envelope = _envelope(stage, "oracle")
    asking = InternalA2AProtocol(stage.bus).request

    async def ask() -> None:
        answer = await asking(envelope, timeout=LEASE / 2)
        assert answer.payload == {"content": [envelope.payload]}, "an answer to another question"

    return ask


@scene("Mailbox.request")
async def _request(stage: Stage) -> Call:
    number = stage.number()

    async def ask() -> None:
        answer = await stage.ada.mailbox.request(
            "oracle", number, timeout=LEASE / 2, idempotency_key=f"k{number}"
        )
        assert answer.content == [number], "an answer to another question"

    return ask


async def _others(stage: Stage) -> list[str]:
    """Who gets a broadcast of Ada's, in the order of its receipts."""
    return [name for name in (await stage.bus._core.agents()).boxes if name != "ada"]


async def _alone(send: Callable[[Any], Awaitable[Receipt[Any]]], it: Any) -> list[Receipt[Any]]:
    return [await send(it)]


def _envelope(stage: Stage, to: str) -> InternalA2AEnvelope:
    number = stage.number()
    return InternalA2AEnvelope(
        message_type="event" if to == "bob" else "request",
        run_id="run",
        thread_id="",
        conversation_id="talk",
        correlation_id=f"c{number}",
        idempotency_key=f"e{number}",
        source_agent="ada",
        target_agent=to,
        payload={"number": number},
    )


@scene("Receipt.status")
async def _status(stage: Stage) -> Call:
    return (await stage.mail()).status


@scene("Receipt.settled")
async def _settled(stage: Stage) -> Call:
    """While it is being acked."""
    delivery = await stage.held()
    content = delivery.message.content
    receipt = await stage.ada.send("bob", content, key=content["key"])
    stage.beside(stage.bob.settle(delivery, "done"))
    return lambda: receipt.settled(LEASE / 2)


@scene("Receipt.result")
async def _result(stage: Stage) -> Call:
    receipt = await _asked(stage)
    return lambda: receipt.result(LEASE / 2)


async def _asked(stage: Stage) -> Receipt[Any]:
    """Of a question whose answer is still to come, or has come."""
    while True:
        try:
            await stage.ada.mailbox.request("oracle", stage.number(), timeout=0.0, ttl=LEASE)
        except RequestTimeoutError as late:
            receipt: Receipt[Any] = late.receipt
            return receipt
