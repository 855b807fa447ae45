"""Messages by the thousand, through the store's port: only that they are stored counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from afk.messaging import AgentMessage, MessageBus
from afk.messaging.records import letter_record
from afk.messaging.sending import to_send
from afk.messaging.store import Claim, Send, Turn

from ..buses import payload

FILL = 1000
"""So many a step."""


async def put(
    bus: MessageBus,
    mailbox: str,
    first: int,
    count: int,
    thread: Callable[[int], str],
    delay: float = 0.0,
) -> None:
    """Messages to a mailbox, each of the thread its number gives."""
    for start in range(first, first + count, FILL):
        sends = [
            _send(bus, mailbox, number, thread(number), delay)
            for number in range(start, min(start + FILL, first + count))
        ]
        await bus._core.store.put(tuple([Turn(sends=(send,)) for send in sends]))


async def lease(bus: MessageBus, mailbox: str, count: int) -> None:
    """Take so many, for a day."""
    while count:
        claim = Claim(mailbox=mailbox, limit=min(FILL, count), lease=86_400.0)
        batch = await bus._core.store.claim(claim)
        assert batch.leased
        count -= len(batch.leased)


def _send(bus: MessageBus, mailbox: str, number: int, thread: str, delay: float) -> Send:
    record = letter_record(AgentMessage("sender", mailbox, payload(number)))
    send: Any = to_send(record, bus._core.settings, delay=delay)
    return Send(
        **{name: getattr(send, name) for name in Send.__struct_fields__} | {"thread": thread}
    )
