"""Promise 12: loops end."""

from __future__ import annotations

import asyncio
from typing import Any

from ...delivery import Delivery
from ...messages import AgentMessage
from ..steps import PATIENCE, claimed, serving, until
from ..subject import Subject


async def taken(delivery: Delivery[AgentMessage]) -> None:
    """Leave a message be; it is acked."""


async def check_hops_are_counted(subject: Subject) -> None:
    """A message that follows from none has no hops; `reply` and `delivery.send` carry one more
    than what was read."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", "start")
        first = await claimed(bob)
        assert first.message.hops == 0
        assert first.message.reply("by hand").hops == 1
        await first.send("bob", "forward")
        await first.reply("back")
        await first.ack()
        for box in (ada, bob):
            delivery = await claimed(box)
            assert delivery.message.hops == 1
            assert delivery.message.causation_id == first.message.id


async def check_sends_inside_a_handler_follow_from_its_message(subject: Subject) -> None:
    """What a mailbox sends, broadcasts or asks while a handler runs carries the message's
    correlation id on, and one hop more."""
    done = asyncio.Event()

    async def handler(_: Delivery[AgentMessage]) -> None:
        await bob.send("eve", "sent")
        await bob.broadcast("told")
        await bob.request("kim", "asked", timeout=PATIENCE)
        done.set()

    async def answer(delivery: Delivery[AgentMessage]) -> str | None:
        return "answered" if delivery.message.content == "asked" else None

    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        kim, _ = await bus.register("kim"), await bus.register("eve")
        start = await ada.send("bob", "start", correlation_id="c")
        async with asyncio.timeout(PATIENCE), serving(bob, handler), serving(kim, answer):
            await done.wait()
        messages = [entry.message for entry in await bus.trace("c") if entry.id != start.id]
        hops = {(m.content, m.hops) for m in messages if m}
        assert hops == {("sent", 1), ("told", 1), ("asked", 1), ("answered", 2)}
        assert {m.correlation_id for m in messages if m} == {"c"}


async def check_a_chain_without_correlation_id_gets_one(subject: Subject) -> None:
    """A message without a correlation id starts a chain under its own id."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        start = await ada.send("bob", "start")
        async with serving(bob, _forward_once):
            delivery = await claimed(ada, PATIENCE)
        assert delivery.message.correlation_id == start.id
        assert [entry.id for entry in await bus.trace(start.id)] == [start.id, delivery.message.id]


async def _forward_once(delivery: Delivery[AgentMessage]) -> None:
    await delivery.send("ada", "forwarded")


async def check_a_loop_ends_in_a_dead_letter(subject: Subject) -> None:
    """Two agents that answer each other for ever stop past `max_hops`: the last message is a
    dead letter (`hops`), and the turn that sent it is finished."""

    async def pong(delivery: Delivery[AgentMessage]) -> None:
        await delivery.send(delivery.message.sender, delivery.message.content + 1)

    async def ended() -> bool:
        return bool(await bus.dead_letters(reason="hops"))

    async with subject.bus(max_hops=6) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        start = await ada.send("bob", 0)
        async with serving(ada, pong), serving(bob, pong):
            await until(ended, "the loop ends")
        trace = await bus.trace(start.id)
        assert [entry.state for entry in trace] == ["done"] * 7 + ["dead"]
        [letter] = await bus.dead_letters()
        assert letter.message is not None
        assert (letter.message.content, letter.message.hops) == (7, 7)


async def check_a_loop_by_mailbox_sends_ends(subject: Subject) -> None:
    """A loop made of plain sends inside handlers, of broadcasts, or of replies by hand ends as
    well."""

    async def shout(delivery: Delivery[AgentMessage]) -> None:
        await boxes[delivery.message.content].broadcast(1 - delivery.message.content)

    async def echo(delivery: Delivery[AgentMessage]) -> None:
        await bus.deliver(delivery.message.reply(1 - delivery.message.content))

    async def ended() -> bool:
        return bool(await bus.dead_letters(reason="hops"))

    most = 4
    for handler in (shout, echo):
        async with subject.bus(max_hops=most) as bus:
            boxes = [await bus.register("a"), await bus.register("b")]
            await boxes[0].send("b", 1)
            async with serving(boxes[0], handler), serving(boxes[1], handler):
                await until(ended, "the loop ends")
            [letter] = await bus.dead_letters(reason="hops")
            assert letter.message is not None
            assert letter.message.hops == most + 1
            await bus.discard(letter.id)


async def check_hops_count_anew_after_a_redrive(subject: Subject) -> None:
    """A dead letter of too many hops, redriven, is delivered, and what follows from it counts
    anew."""

    async def forward(delivery: Delivery[AgentMessage]) -> Any:
        await delivery.send("bob", delivery.message.content + 1)

    async def ended() -> bool:
        return bool(await bus.dead_letters(reason="hops"))

    async with subject.bus(max_hops=2) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", 0)
        async with serving(bob, forward):
            await until(ended, "the loop ends")
        [letter] = await bus.dead_letters()
        assert await bus.redrive(letter.id) == 1
        again = await claimed(bob)
        assert (again.message.content, again.message.hops) == (3, 0)
        await again.send("bob", "next")
        await again.ack()
        assert (await claimed(bob)).message.hops == 1


async def check_a_message_outside_a_handler_starts_a_chain(subject: Subject) -> None:
    """Once a handler has returned, and for tasks that are not part of it, a send starts a chain
    of its own."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        first = await ada.send("bob", "one", correlation_id="c")
        async with serving(bob, taken):
            assert await first.settled(timeout=PATIENCE) == "done"
            second = await ada.send("bob", "two")
        assert (second.message.hops, second.message.correlation_id) == (0, None)
        assert second.message.causation_id is None
