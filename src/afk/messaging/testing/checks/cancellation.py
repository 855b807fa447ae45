"""Promise 13: cancel any await at any tick, and nothing is lost.

Every check does one thing again and again, and cancels it one tick later each time; then a few
times after a random pause, for stores whose work is done outside the event loop.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import Any, TypeVar

from ...delivery import Delivery
from ...mailbox import AgentMailbox
from ...messages import AgentMessage
from ...receipts import Receipt
from ..steps import PATIENCE, Effects, claimed, contents, serving, until
from ..subject import Subject

T = TypeVar("T")
Moment = Callable[[], Awaitable[None]]

TICKS, PAUSES, LONGEST = 16, 12, 0.02
"""How many ticks, how many random pauses, and how long a pause at most (s)."""


def moments() -> Iterator[Moment]:
    """When to cancel: now, a tick later, two ticks later, ...; then after random pauses."""
    for count in range(TICKS):
        yield partial(_ticks, count)
    for _ in range(PAUSES):
        yield partial(asyncio.sleep, random.random() * LONGEST)


async def _ticks(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _cancelled(call: Coroutine[Any, Any, T] | asyncio.Task[T], moment: Moment) -> T | None:
    """What reached the caller, if it did before the call was cancelled."""
    task = call if isinstance(call, asyncio.Task) else asyncio.create_task(call)
    await moment()
    task.cancel()
    await asyncio.wait({task}, timeout=PATIENCE)
    assert task.done(), "a cancelled call does not end"
    return None if task.cancelled() else task.result()


async def _three(mailbox: AgentMailbox) -> list[Receipt[AgentMessage]]:
    return [await mailbox.send(mailbox.name, n) for n in range(3)]


async def _expect_rest(mailbox: AgentMailbox, first: int) -> None:
    """What is left of the three is there at once, in its order and not yet attempted."""
    for n in range(first, 3):
        delivery = await claimed(mailbox)
        assert (delivery.message.content, delivery.attempt) == (n, 1)
        await delivery.ack()
    assert await mailbox.claim(timeout=0) is None


async def check_a_cancelled_receive_loses_nothing(subject: Subject) -> None:
    """Cancel `receive` at any tick: the message is in the caller's hands, or in the mailbox at
    once, at its place, with its attempt unused."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        for moment in moments():
            await _three(bob)
            message = await _cancelled(bob.receive(timeout=PATIENCE), moment)
            assert message is None or message.content == 0
            await _expect_rest(bob, 0 if message is None else 1)


async def check_a_cancelled_claim_gives_back(subject: Subject) -> None:
    """Cancel `claim` at any tick: the delivery is in the caller's hands, who can settle it, or
    back at its place."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        for moment in moments():
            await _three(bob)
            delivery = await _cancelled(bob.claim(timeout=PATIENCE), moment)
            if delivery is not None:
                assert (delivery.message.content, delivery.attempt) == (0, 1)
                await delivery.ack()
            await _expect_rest(bob, 0 if delivery is None else 1)


async def check_a_cancelled_waiter_loses_nothing(subject: Subject) -> None:
    """Cancel a waiting `receive` at any tick after mail came: in the caller's hands, or there."""
    async with subject.bus() as bus, subject.bus() as other:
        bob, pen = await bus.register("bob"), await other.register("bob")
        for moment in moments():
            waiting = asyncio.create_task(bob.receive(timeout=PATIENCE))
            await _ticks(3)
            await _three(pen)
            message = await _cancelled(waiting, moment)
            assert message is None or message.content == 0
            await _expect_rest(bob, 0 if message is None else 1)


async def check_a_cancelled_waiter_passes_mail_on(subject: Subject) -> None:
    """A consumer cancelled just when mail comes takes no hint with it: the next one waiting
    gets the mail, without a lease or a long poll in between."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        for moment in moments():
            leaving, staying = [
                asyncio.create_task(bob.receive(timeout=PATIENCE)) for _ in range(2)
            ]
            await _ticks(3)
            await bob.send("bob", "mail")
            message = await _cancelled(leaving, moment)
            if message is not None:
                await bob.send("bob", "mail")
            async with asyncio.timeout(PATIENCE / 2):
                message = await staying
            assert message is not None
            assert message.content == "mail"


async def check_a_cancelled_send_is_all_or_nothing(subject: Subject) -> None:
    """Cancel `send` at any tick: the message is stored, or it is not; sent again with its key it
    is there once."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        for n, moment in enumerate(moments()):
            await _cancelled(bob.send("bob", n, idempotency_key=f"k{n}"), moment)
            again = await bob.send("bob", n, idempotency_key=f"k{n}")
            message = await bob.receive(timeout=PATIENCE)
            assert message is not None
            assert (message.content, message.id) == (n, again.id)
            assert await bob.receive(timeout=0) is None


async def check_a_cancelled_broadcast_is_all_or_nothing(subject: Subject) -> None:
    """Cancel `broadcast` at any tick: every agent has its copy, or none has."""
    async with subject.bus() as bus:
        ada = await bus.register("ada")
        others = [await bus.register(f"agent-{n}") for n in range(3)]
        for n, moment in enumerate(moments()):
            await _cancelled(ada.broadcast(n), moment)
            told = [await contents(other) for other in others]
            assert told in ([[]] * 3, [[n]] * 3), "half a broadcast"


async def check_a_cancelled_ack_is_all_or_nothing(subject: Subject) -> None:
    """Cancel `ack` at any tick: the turn happened, sends and all; or it did not, and its holder
    can still settle it."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for n, moment in enumerate(moments()):
            receipt = await ada.send("bob", n)
            delivery = await claimed(bob, PATIENCE)
            await delivery.send("ada", n)
            await _cancelled(delivery.ack(), moment)
            if await receipt.status() != "done":
                assert await ada.message_count() == 0, "half a turn"
                delivery = await bob.resume(delivery.token)
                await delivery.send("ada", n)
                await delivery.ack()
            message = await ada.receive(timeout=PATIENCE)
            assert message is not None
            assert message.content == n
            assert await ada.receive(timeout=0) is None


async def check_a_cancelled_request_gets_no_wrong_answer(subject: Subject) -> None:
    """Cancel `request` at any tick: later requests get their own answers, and so does the
    cancelled one when it is repeated with its key."""

    async def echo(delivery: Delivery[AgentMessage]) -> Any:
        return {"echo": delivery.message.content}

    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        async with serving(bob, echo):
            for n, moment in enumerate(moments()):
                ask = partial(ada.request, "bob", n, timeout=PATIENCE, idempotency_key=f"k{n}")
                answer = await _cancelled(ask(), moment)
                other = await ada.request("bob", "other", timeout=PATIENCE)
                assert other.content == {"echo": "other"}
                again = await ask()
                assert again.content == {"echo": n}
                assert answer is None or answer == again
        assert await ada.message_count() == 0


async def check_a_cancelled_serve_gives_back(subject: Subject) -> None:
    """Cancel `serve` at any tick: no handler goes on, only finished work is done, and the rest
    is at its place at once with its attempt unused."""
    running: set[int] = set()
    finished: set[int] = set()

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        running.add(n := delivery.message.content)
        try:
            await asyncio.sleep(random.choice((0, 0.001)))
            finished.add(n)
        finally:
            running.remove(n)

    async with subject.bus() as bus:
        bob = await bus.register("bob")
        for moment in moments():
            finished.clear()
            receipts = [await bob.send("bob", n) for n in range(4)]
            await _cancelled(bob.serve(handler, concurrency=2, grace=0), moment)
            assert not running
            states = [await receipt.status() for receipt in receipts]
            assert set(states) <= {"done", "pending"}
            assert {n for n in range(4) if states[n] == "done"} <= finished
            for n in (n for n in range(4) if states[n] == "pending"):
                delivery = await claimed(bob)
                assert (delivery.message.content, delivery.attempt) == (n, 1)
                await delivery.ack()


async def check_a_cancelled_block_gives_back(subject: Subject) -> None:
    """Cancelled on the way into or inside `async with delivery`: given back at once, no attempt
    used, and nothing sent of what it had sent."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")

        async def work() -> None:
            async with await claimed(bob, PATIENCE) as delivery:
                await delivery.send("bob", "never")
                await asyncio.sleep(PATIENCE)

        for moment in moments():
            await _three(bob)
            await _cancelled(work(), moment)
            await _expect_rest(bob, 0)


async def check_a_cancelled_iteration_gives_back(subject: Subject) -> None:
    """Cancelled at any tick of `async for delivery in deliveries()`: each is held by the caller
    or back in the mailbox."""
    held: list[Delivery[AgentMessage]] = []

    async def work(bob: AgentMailbox) -> None:
        async for delivery in bob.deliveries():
            held.append(delivery)
            await asyncio.sleep(0)

    async with subject.bus() as bus:
        bob = await bus.register("bob")
        for moment in moments():
            await _three(bob)
            await _cancelled(work(bob), moment)
            assert [delivery.message.content for delivery in held] == list(range(len(held)))
            for delivery in held:
                await delivery.ack()
            await _expect_rest(bob, len(held))
            held.clear()


async def check_a_cancelled_transaction_undoes_everything(subject: Subject) -> None:
    """Cancelled at any tick of a turn with a transaction: effect, send and ack are all there, or
    none is and its holder can do it again."""
    if not subject.capabilities.transactions:
        return

    effects = Effects()

    async def turn(delivery: Delivery[AgentMessage]) -> None:
        async with delivery.transaction() as conn:
            await effects.create(conn)
            await effects.add(conn, delivery.message.content)
            await asyncio.sleep(0)
            await delivery.reply(delivery.message.content)

    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for n, moment in enumerate(moments()):
            receipt = await ada.send("bob", n)
            delivery = await claimed(bob, PATIENCE)
            await _cancelled(turn(delivery), moment)
            if await receipt.status() != "done":
                assert await ada.message_count() == 0
                await turn(await bob.resume(delivery.token))
            message = await ada.receive(timeout=PATIENCE)
            assert message is not None
            assert message.content == n
        await bob.send("bob", "look")
        async with (await claimed(bob, PATIENCE)).transaction() as conn:
            assert sorted(map(int, await effects.all(conn))) == list(range(n + 1))


async def check_a_storm_of_cancels_loses_nothing(subject: Subject) -> None:
    """Senders and consumers of two buses, cancelled at random: every message whose send returned
    is received once, and one whose send was cancelled at most once."""
    tried: list[int] = []
    accepted: set[int] = set()
    received: list[int] = []

    async def send(bob: AgentMailbox) -> None:
        tried.append(n := len(tried))
        await bob.send("bob", n)
        accepted.add(n)

    async def receive(bob: AgentMailbox) -> None:
        if (message := await bob.receive(timeout=LONGEST)) is not None:
            received.append(message.content)

    async def harass(bob: AgentMailbox) -> None:
        for _ in range(25):
            pause = partial(asyncio.sleep, random.choice((0, random.random() * LONGEST)))
            await _cancelled(random.choice((send, receive))(bob), pause)

    async with subject.bus() as one, subject.bus() as two:
        boxes = [await one.register("bob"), await two.register("bob")]
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(harass(boxes[n % 2]) for n in range(8)))
        while (message := await boxes[0].receive(timeout=0)) is not None:
            received.append(message.content)
        assert (await one.stats())["bob"].leased == 0
    assert len(set(received)) == len(received)
    assert accepted <= set(received) <= set(tried)


async def check_cancelling_leaks_no_task(subject: Subject) -> None:
    """Once the buses are closed, no task is left of calls that were cancelled."""
    before = asyncio.all_tasks()
    async with subject.bus() as bus:
        bob = await bus.register("bob")

        async def never(delivery: Delivery[AgentMessage]) -> None:
            await asyncio.sleep(PATIENCE)

        for moment in moments():
            await bob.send("bob", "mail")
            await _cancelled(bob.receive(), moment)
            await _cancelled(bob.claim(), moment)
            await _cancelled(bob.request("bob", "question", timeout=PATIENCE), moment)
            await _cancelled(bob.serve(never, concurrency=4, grace=0), moment)
    await until(lambda: not asyncio.all_tasks() - before, "every task has ended")
