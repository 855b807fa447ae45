"""Promise 13: cancel any await at any tick, and nothing is lost.

Every check does the same thing again and again, and cancels it one tick later each time; then
a few times after a random pause, for stores whose work is done outside the event loop.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from ...bus import MessageBus
from ...delivery import Delivery
from ...errors import MessagingError
from ...mailbox import AgentMailbox
from ...messages import AgentMessage
from ..expect import raises
from ..steps import AT_ONCE, PATIENCE, claimed, serving, until
from ..subject import Subject

T = TypeVar("T")

TICKS, PAUSES, LONGEST = 16, 12, 0.02
"""How many ticks, how many random pauses, and how long a pause at most (s)."""


async def check_a_cancelled_receive_loses_nothing(subject: Subject) -> None:
    """Cancel `receive` at any tick, before or after mail came: the message is in the caller's
    hands, or in the mailbox at once, at its place, with its attempt unused."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        for moment in _moments():
            await _three(bob)
            message = await _cancelled(bob.receive(timeout=PATIENCE), moment)
            await _expect_rest(bob, 0 if message is None else 1)
            assert message is None or message.content == 0


async def check_a_cancelled_claim_gives_back(subject: Subject) -> None:
    """The same for `claim`: held by the caller, who can settle it, or back at its place."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        for moment in _moments():
            await _three(bob)
            delivery = await _cancelled(bob.claim(timeout=PATIENCE), moment)
            if delivery is not None:
                assert (delivery.message.content, delivery.attempt) == (0, 1)
                await delivery.ack()
            await _expect_rest(bob, 0 if delivery is None else 1)


async def check_a_cancelled_waiter_passes_mail_on(subject: Subject) -> None:
    """A consumer cancelled while it waits, just when mail comes, takes none with it: the next
    consumer gets it, without waiting for a lease or a poll."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        for moment in _moments():
            leaving = asyncio.create_task(bob.receive(timeout=PATIENCE))
            staying = asyncio.create_task(bob.receive(timeout=PATIENCE))
            await asyncio.sleep(0)
            await bob.send("bob", "one")
            await bob.send("bob", "two")
            first = await _cancelled(leaving, moment)
            async with asyncio.timeout(PATIENCE / 2):
                found = [first, await staying]
                while None in found:
                    found[found.index(None)] = await bob.receive(timeout=PATIENCE)
            assert sorted(m.content for m in found if m is not None) == ["one", "two"]


async def check_a_cancelled_send_is_all_or_nothing(subject: Subject) -> None:
    """Cancel `send` at any tick: the message is stored or it is not, never half; sent again with
    its key it is there once."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        for n, moment in enumerate(_moments()):
            await _cancelled(bob.send("bob", n, idempotency_key=str(n)), moment)
            again = await bob.send("bob", n, idempotency_key=str(n))
            message = await bob.receive(timeout=PATIENCE)
            assert message is not None
            assert (message.content, message.id) == (n, again.id)
            assert await bob.receive(timeout=0) is None


async def check_a_cancelled_settle_is_all_or_nothing(subject: Subject) -> None:
    """Cancel `ack` at any tick: the turn happened, sends and all, or it did not, and then its
    holder can still settle it."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for n, moment in enumerate(_moments()):
            receipt = await ada.send("bob", n)
            delivery = await claimed(bob, PATIENCE)
            await delivery.send("ada", n)
            await _cancelled(delivery.ack(), moment)
            if await receipt.status() != "done":
                await (await bob.resume(delivery.token)).ack()
                assert await ada.message_count() == 0, "half a turn"
                continue
            message = await ada.receive(timeout=PATIENCE)
            assert message is not None
            assert message.content == n


async def check_a_cancelled_request_gets_no_wrong_answer(subject: Subject) -> None:
    """Cancel `request` at any tick: later requests get their own answers, and the cancelled one,
    repeated with its key, gets its own too."""

    async def echo(delivery: Delivery[AgentMessage]) -> Any:
        return {"echo": delivery.message.content}

    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        async with serving(bob, echo):
            for n, moment in enumerate(_moments()):
                key = str(n)
                asking = ada.request("bob", n, timeout=PATIENCE, idempotency_key=key)
                answer = await _cancelled(asking, moment)
                other = await ada.request("bob", "other", timeout=PATIENCE)
                assert other.content == {"echo": "other"}
                again = await ada.request("bob", n, timeout=PATIENCE, idempotency_key=key)
                assert again.content == {"echo": n}
                assert answer is None or answer.id == again.id
        assert await ada.message_count() == 0


async def check_a_cancelled_serve_gives_back(subject: Subject) -> None:
    """Cancel `serve` at any tick: what its handlers finished is done, the rest is back at its
    place with its attempt unused, and no handler goes on."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        for moment in _moments():
            running, finished = await _serve_cancelled(bob, moment)
            assert running == 0
            states = {x.message.content: x.state for x in await bus.messages(agent="bob")
                      if x.message and x.state != "cancelled"}  # fmt: skip
            for n, state in states.items():
                assert state == ("done" if n in finished else "pending"), (n, state, finished)
            left = [n for n in range(4) if n not in finished]
            for n in left:
                delivery = await claimed(bob)
                assert (delivery.message.content, delivery.attempt) == (n, 1)
                await delivery.reject("seen")
            await bus.discard(agent="bob")
            break_even = [x.id for x in await bus.messages(agent="bob", state="done")]
            assert len(break_even) >= len(finished)


async def _serve_cancelled(bob: AgentMailbox, moment: Awaitable[None]) -> tuple[int, set[int]]:
    """Serve four messages and be cancelled: how many handlers still run, what was finished."""
    running, finished = 0, set()

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        nonlocal running
        running += 1
        try:
            await asyncio.sleep(0.002)
            finished.add(delivery.message.content)
        finally:
            running -= 1

    for n in range(4):
        await bob.send("bob", n)
    await _cancelled(bob.serve(handler, concurrency=2, grace=0), moment)
    return running, finished


async def check_a_cancelled_block_gives_back(subject: Subject) -> None:
    """Cancelled inside `async with delivery`: given back at once, no attempt used, nothing of
    what it had sent sent."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")

        async def work() -> None:
            async with await claimed(bob, PATIENCE) as delivery:
                await delivery.send("bob", "never")
                await asyncio.sleep(PATIENCE)

        for moment in _moments():
            await _three(bob)
            await _cancelled(work(), moment)
            await _expect_rest(bob, 0)


async def check_a_cancelled_iteration_gives_back(subject: Subject) -> None:
    """Cancelled while `deliveries()` waits or has just given one: held by the caller or back."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        held: list[Delivery[AgentMessage]] = []

        async def work() -> None:
            async for delivery in bob.deliveries():
                held.append(delivery)  # noqa: PERF401 - it is cancelled here
                await asyncio.sleep(0)

        for moment in _moments():
            await _three(bob)
            await _cancelled(work(), moment)
            count = len(held)
            while held:
                await held.pop(0).ack()
            await _expect_rest(bob, count)


async def check_a_cancelled_transaction_undoes_everything(subject: Subject) -> None:
    """Cancelled at any tick of a turn with a transaction: effect, sends and ack are all there or
    none is, and the store's connection serves the next."""
    if not subject.capabilities.transactions:
        return
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await bob.send("bob", "prepare")
        async with (await claimed(bob, PATIENCE)).transaction() as conn:
            conn.execute("CREATE TABLE effects (n INTEGER)")

        async def turn(delivery: Delivery[AgentMessage]) -> None:
            async with delivery.transaction() as conn:
                conn.execute("INSERT INTO effects VALUES (?)", (delivery.message.content,))
                await delivery.reply(delivery.message.content)
                await asyncio.sleep(0)

        for n, moment in enumerate(_moments()):
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
                rows = conn.execute("SELECT n FROM effects ORDER BY n", ()).fetchall()
            assert [row[0] for row in rows] == list(range(n + 1))


async def check_a_storm_of_cancels_loses_nothing(subject: Subject) -> None:
    """Consumers and senders cancelled at random for a while: every message whose send returned
    is received exactly once, those of cancelled sends at most once."""
    accepted: set[int] = set()
    tried: set[int] = set()
    received: list[int] = []

    async def send(bob: AgentMailbox) -> None:
        tried.add(n := len(tried))
        await bob.send("bob", n)
        accepted.add(n)

    async def receive(bob: AgentMailbox) -> None:
        message = await bob.receive(timeout=0.01)
        if message is not None:
            received.append(message.content)

    async with subject.bus() as one, subject.bus() as two:
        boxes = [await one.register("bob"), await two.register("bob")]
        tasks = [
            asyncio.create_task(_harassed(random.choice((send, receive)), boxes[k % 2], 25))
            for k in range(8)
        ]
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*tasks)
        while (message := await boxes[0].receive(timeout=0.2)) is not None:
            received.append(message.content)
    assert len(set(received)) == len(received), "received twice"
    assert accepted <= set(received) <= tried


async def check_cancelling_leaks_nothing(subject: Subject) -> None:
    """After all that was cancelled and the bus is closed, no task is left behind, and no lease
    was: everything waiting can be claimed at once."""
    before = asyncio.all_tasks()
    async with subject.bus() as bus, subject.bus() as watcher:
        bob, eye = await bus.register("bob"), await watcher.register("bob")
        for moment in _moments():
            for call in (bob.receive(), bob.claim(), bob.request("bob", 1, timeout=PATIENCE)):
                await _cancelled(call, _pause(0) if moment is None else moment)
                moment = _tick(random.randrange(TICKS))
            moment.close()
        with raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await bob.serve(_ignore)
        assert (await watcher.stats())["bob"].leased == 0
        while await eye.receive(timeout=0) is not None:
            pass
        assert (await watcher.stats())["bob"].pending["all"] == 0
    await until(lambda: not asyncio.all_tasks() - before, "every task has ended")
