"""`afk receive`, `wait`, `ack`, `nack`: what an agent would take."""

from __future__ import annotations

import asyncio
from typing import Annotated

from cyclopts import App, Parameter

from afk.messaging import AgentMailbox, AgentMessage, Delivery, MessageBus

from . import screen, shapes
from .finding import check_agent, find_either
from .place import BAD_INPUT, FAILED, UNSAID, Json, Place, fail, on

commands = App(name="afk")

LOOK_EVERY = 0.2
"""Seconds between two looks of `afk wait`: it takes nothing, so nobody tells it."""

Flag = Parameter(negative=())


@commands.command
def receive(
    name: str,
    *,
    ack: Annotated[bool, Flag] = False,
    peek: Annotated[bool, Flag] = False,
    timeout: float = 0.0,
    lease: float = 300.0,
    limit: int = 1,
    place: Place = UNSAID,
    as_json: Json = False,
) -> None:
    """Print the next message of an agent; exit code 1 if there is none.

    The message is leased: unless `afk ack`, `nack` or `reply` follows with the token that is
    printed, it comes again when the lease ends.

    Examples
    --------
    afk receive writer

    afk receive writer --ack --timeout 60

    afk receive writer --peek --limit 20

    Parameters
    ----------
    name
        The agent whose mail it is.
    ack
        Take it: it is done as soon as it is printed.
    peek
        Look at what waits, in the order of delivery, and change nothing.
    timeout
        Seconds to wait for one.
    lease
        Seconds in which nobody else gets it.
    limit
        How many to print at the most.
    as_json
        Print each as a line of JSON.
    """
    if ack and peek:
        fail("--ack takes the message and --peek leaves it; choose one", BAD_INPUT)

    async def work(bus: MessageBus) -> int:
        mailbox = bus.mailbox(name)
        if peek:
            await check_agent(bus, name)
            messages = await mailbox.peek(limit)
            for message in messages:
                _show(message, "", as_json)
            return 0 if messages else FAILED
        return await _take(mailbox, limit, timeout, lease, ack=ack, as_json=as_json)

    on(place, work)


async def _take(
    mailbox: AgentMailbox, limit: int, timeout: float, lease: float, *, ack: bool, as_json: bool
) -> int:
    for number in range(limit):
        delivery = await mailbox.claim(0 if number else timeout, lease=lease)
        if delivery is None:
            return 0 if number else FAILED
        _show(delivery.message, delivery.token if not ack else "", as_json, delivery)
        if ack:
            await delivery.ack()
    return 0


def _show(
    message: AgentMessage,
    token: str | None,
    as_json: bool,
    delivery: Delivery[AgentMessage] | None = None,
) -> None:
    if as_json:
        shape = shapes.message(message) or {}
        if delivery is not None:
            shape |= {"attempt": delivery.attempt, "token": token or None}
        shapes.put(shape)
        return
    lines = [f"token: {token}"] if token else []
    if delivery is not None and delivery.attempt > 1:
        lines.append(f"attempt: {delivery.attempt}")
    print("\n".join([*lines, screen.letter(message), ""]), flush=True)


@commands.command
def wait(
    name: str,
    *,
    timeout: float | None = None,
    place: Place = UNSAID,
    as_json: Json = False,
) -> None:
    """Wait until an agent has mail, and say how much; takes nothing.

    Exit code 0 once there is some, 1 if there is none in time: made for hooks and shell loops.

    Examples
    --------
    while afk wait writer --timeout 600; do my-writer; done

    Parameters
    ----------
    name
        The agent.
    timeout
        Seconds to wait; for ever without.
    as_json
        Print the notice as JSON.
    """

    async def work(bus: MessageBus) -> int:
        mailbox = bus.mailbox(name)
        try:
            async with asyncio.timeout(timeout):
                while not await mailbox.message_count():  # noqa: ASYNC110 - of another process
                    await asyncio.sleep(LOOK_EVERY)
        except TimeoutError:
            return FAILED
        waiting = await mailbox.peek(1)
        count = await mailbox.message_count()
        sender = waiting[0].sender if waiting else None
        if as_json:
            shapes.put({"agent": name, "pending": count, "next_from": sender})
        else:
            said = f"{name} has {count} message(s) waiting; the next is from {sender}"
            print(screen.printable(said))
        return 0

    on(place, work)


@commands.command
def ack(token: str, *, place: Place = UNSAID) -> None:
    """Settle what `afk receive` leased: it is done.

    Parameters
    ----------
    token
        What `afk receive` printed.
    """

    async def work(bus: MessageBus) -> None:
        await (await _resume(bus, token)).ack()

    on(place, work)


@commands.command
def nack(
    token: str,
    error: str = "given back with afk nack",
    *,
    delay: float | None = None,
    reject: Annotated[bool, Flag] = False,
    place: Place = UNSAID,
) -> None:
    """Settle what `afk receive` leased: it failed, and comes again after a pause.

    Parameters
    ----------
    token
        What `afk receive` printed.
    error
        Why; kept with a dead letter.
    delay
        Seconds until it comes again; by the retry policy without.
    reject
        It can never succeed: make it a dead letter at once.
    """

    async def work(bus: MessageBus) -> None:
        delivery = await _resume(bus, token)
        await (delivery.reject(error) if reject else delivery.nack(error, delay=delay))

    on(place, work)


async def _resume(bus: MessageBus, token: str) -> Delivery[AgentMessage]:
    entry, found = await find_either(bus, token)
    if found is None:
        fail(f"{token!r} is no token; afk receive prints one with each message", BAD_INPUT)
    return await bus.mailbox(entry.agent).resume(found)
