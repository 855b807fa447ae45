"""Promises 3, 5, 7 and 13 where a block, a handler or a bus ends in an unusual way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from ...delivery import Delivery
from ...errors import MailboxFullError, RequestTimeoutError, UsageError
from ...lifecycle import RetryPolicy
from ...messages import AgentMessage
from ..clock import FakeClock
from ..expect import raises
from ..steps import AT_ONCE, PATIENCE, claimed, serving, until
from ..subject import Subject

# -- a block that cannot be acked --------------------------------------------------------


async def check_a_refused_ack_fails_the_attempt(subject: Subject) -> None:
    """A block whose sends are refused raises the refusal, and its message is tried again."""
    async with subject.bus(retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        await bus.register("full", capacity=1)
        await bob.send("full", "fills it", priority="urgent")
        await bob.send("bob", "work")
        with raises(MailboxFullError):
            async with await claimed(bob) as delivery:
                await delivery.send("full", "one too many")
        again = await claimed(bob, PATIENCE)
        assert (again.message.content, again.attempt) == ("work", 2)


async def check_a_cancelled_ack_is_not_held(subject: Subject) -> None:
    """Cancel a block while it acks: the message is done, or at once back with its attempt."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        for ticks in range(8):
            receipt = await bob.send("bob", ticks)
            left = asyncio.Event()

            async def handle(left: asyncio.Event = left) -> None:
                async with await claimed(bob):
                    left.set()

            task = asyncio.create_task(handle())
            await left.wait()
            for _ in range(ticks):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task}, timeout=PATIENCE)
            again = await bob.claim(timeout=0)
            if again is not None:
                assert again.attempt == 1
                await again.ack()
            assert await receipt.status() == "done"


# -- a cancellation that no one asked for ------------------------------------------------


async def _awaits_what_was_cancelled(delivery: Delivery[AgentMessage]) -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def check_a_handlers_own_cancellation_is_a_failure(subject: Subject) -> None:
    """A CancelledError that nobody's `cancel()` caused uses up an attempt like any error."""
    async with subject.bus(retry=RetryPolicy(max_attempts=2, base=0)) as bus:
        bob = await bus.register("bob")
        receipt = await bob.send("bob", "work")
        async with serving(bob, _awaits_what_was_cancelled):
            assert await receipt.settled(PATIENCE) == "dead"
        [letter] = await bus.dead_letters()
        assert (letter.reason, letter.attempts) == ("exhausted", 2)
        assert "CancelledError" in letter.error


async def check_a_blocks_own_cancellation_is_a_failure(subject: Subject) -> None:
    """The same holds for a delivery as a context manager."""
    async with subject.bus(retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "work")
        with raises(asyncio.CancelledError):
            async with await claimed(bob) as delivery:
                await _awaits_what_was_cancelled(delivery)
        assert (await claimed(bob, PATIENCE)).attempt == 2


# -- what cannot be read -----------------------------------------------------------------


@dataclass
class _Picky:
    name: str

    def __post_init__(self) -> None:
        if self.name != "fine":
            raise KeyError(self.name)


async def check_a_type_may_raise_anything(subject: Subject) -> None:
    """Whatever a content type raises when it is made, the message is a dead letter
    (`undecodable`) and the mailbox goes on."""
    async with subject.bus() as bus:
        seen: list[Any] = []

        async def handler(delivery: Delivery[AgentMessage]) -> None:
            seen.append(delivery.message.content)

        bob = await bus.register("bob", type=_Picky)
        await bob.send("bob", {"name": "odd"})
        await bob.send("bob", {"name": "fine"})
        async with serving(bob, handler):
            await until(lambda: seen == [_Picky("fine")], "the mailbox goes on")
        await until(_buried(bus), "it is buried")


def _buried(bus: Any) -> Any:
    async def look() -> bool:
        return [letter.reason for letter in await bus.dead_letters()] == ["undecodable"]

    return look


# -- a sub-request that ended without an answer ------------------------------------------


async def check_a_sub_request_that_expired_is_made_anew(subject: Subject) -> None:
    """A sub-request nobody took in time is put again by the next attempt, which gets its
    answer."""
    clock = FakeClock()
    async with subject.bus(clock, retry=AT_ONCE) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("ada", "work")
        with raises(RequestTimeoutError):
            async with await claimed(ada) as delivery:
                asking = asyncio.create_task(delivery.request("bob", "q", timeout=0.2))
                await until(lambda: _asked(bob), "the request is there")
                clock.advance(1)
                await asking
        async with await claimed(ada, PATIENCE) as delivery:
            assert delivery.attempt == 2
            asking = asyncio.create_task(delivery.request("bob", "q", timeout=PATIENCE))
            question = await claimed(bob, PATIENCE)
            await question.reply("a")
            await question.ack()
            assert (await asking).content == "a"


async def _asked(mailbox: Any) -> bool:
    return bool(await mailbox.message_count())


# -- counting ----------------------------------------------------------------------------


async def check_an_id_named_twice_counts_once(subject: Subject) -> None:
    """`cancel`, `redrive` and `discard` count messages, however often each is named."""
    async with subject.bus() as bus:
        bob = await bus.register("bob", capacity=2)
        for _ in range(3):
            receipt = await bob.send("bob", "work", priority="urgent")
            assert await bus.cancel(receipt.id, receipt.id) == 1
        receipt = await bob.send("bob", "work", priority="urgent")
        await (await claimed(bob)).reject("no")
        assert await bus.redrive(receipt.id, receipt.id) == 1
        await (await claimed(bob)).reject("no")
        assert await bus.discard(receipt.id, receipt.id) == 1


# -- a bus that ends ---------------------------------------------------------------------


async def check_closing_ends_those_who_wait(subject: Subject) -> None:
    """`aclose()` ends `receive` and `serve` with UsageError, at once; twice is once."""
    bus = subject.bus()
    bob = await bus.register("bob")

    async def handler(delivery: Delivery[AgentMessage]) -> None: ...

    waiting = [
        asyncio.create_task(bob.receive()),
        asyncio.create_task(bob.serve(handler)),
    ]
    await asyncio.sleep(0.05)
    await asyncio.gather(bus.aclose(), bus.aclose())
    async with asyncio.timeout(PATIENCE / 4):
        ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in ended] == [UsageError, UsageError]


async def check_closing_during_a_receive_loses_nothing(subject: Subject) -> None:
    """Close a bus while it receives: the message is in the caller's hands and done, or back in
    the mailbox at once with its attempt."""
    async with subject.bus() as other:
        yours = await other.register("bob")
        for ticks in range(12):
            bus = subject.bus()
            bob = await bus.register("bob")
            receipt = await yours.send("bob", ticks)
            task = asyncio.create_task(bob.receive())
            for _ in range(ticks):
                await asyncio.sleep(0)
            await bus.aclose()
            await asyncio.wait({task}, timeout=PATIENCE)
            if task.exception() is None:
                assert await yours.claim(timeout=0) is None
            else:
                assert isinstance(task.exception(), UsageError)
                again = await claimed(yours)
                assert again.attempt == 1
                await again.ack()
            assert await receipt.status() == "done"


async def check_closing_during_an_opening_ends_the_call(subject: Subject) -> None:
    """A call that was opening its bus when that was closed succeeds, or raises UsageError."""
    for ticks in range(8):
        bus = subject.bus()
        task = asyncio.create_task(bus.register("bob"))
        for _ in range(ticks):
            await asyncio.sleep(0)
        await bus.aclose()
        await asyncio.wait({task}, timeout=PATIENCE)
        assert task.exception() is None or isinstance(task.exception(), UsageError)
        with raises(UsageError, "closed"):
            await bus.agents()
