"""A message by its id, or by the token of a lease."""

from __future__ import annotations

from afk.messaging import MessageBus, UnknownAgentError
from afk.messaging.trace import Entry

from .place import BAD_INPUT, FAILED, fail


async def find(bus: MessageBus, id: str) -> Entry:
    """The message and what became of it; ends the command if it is not known."""
    message = await bus.get(id)
    chain = message.correlation_id if message and message.correlation_id else id
    found = next((entry for entry in await bus.trace(chain) if entry.id == id), None)
    if found is None:
        fail(f"no message {id!r}; it was never there, or its history is over", FAILED)
    return found


async def find_either(bus: MessageBus, id: str) -> tuple[Entry, str | None]:
    """The same for an id or a token; and the token, if it is one. An id may look like a token."""
    if await bus.status(id) is None and "." in id:
        return await find(bus, id.rpartition(".")[0]), id
    return await find(bus, id), None


async def check_agent(bus: MessageBus, name: str) -> None:
    """End the command unless the agent is registered."""
    try:
        await bus.mailbox(name).message_count()
    except UnknownAgentError as error:
        fail(error, BAD_INPUT)
