"""serve: what it claims, how it ends, and what no handler and no store can do to it."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from afk.messaging import (
    AgentMessage,
    ConfigurationError,
    Delivery,
    InMemoryA2ADeliveryStore,
    InvalidMessageError,
    LeaseLostError,
    MessageBus,
    Receipt,
    Reject,
    Retry,
    RetryPolicy,
    StoreError,
    UnknownAgentError,
    UsageError,
)
from afk.messaging.lifecycle import Dead
from afk.messaging.store import Batch, Capabilities, Claim, Turn, Verdict
from afk.messaging.testing.steps import AT_ONCE, PATIENCE, claimed, contents, serving, until


class Failing(InMemoryA2ADeliveryStore):
    """A memory store whose verbs fail so many times first: lost before or after it took effect."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = {"claim": 0, "put": 0, "put, answer lost": 0}
        self.calls = 0

    def _fail(self, verb: str) -> None:
        self.calls += 1
        if self.failures[verb]:
            self.failures[verb] -= 1
            raise StoreError(f"{verb} failed")

    async def claim(self, claim: Claim) -> Batch:
        self._fail("claim")
        return await super().claim(claim)

    async def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
        self._fail("put")
        verdicts = await super().put(turns)
        self._fail("put, answer lost")
        return verdicts


class Silent(InMemoryA2ADeliveryStore):
    """A memory store that takes acks, and does not say so until it is allowed to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_say_so = asyncio.Event()

    async def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
        verdicts = await super().put(turns)
        if any(turn.token for turn in turns):
            await self.may_say_so.wait()
        return verdicts


class Picky(InMemoryA2ADeliveryStore):
    """A memory store that takes no call with a dead letter in it."""

    async def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
        if any(isinstance(turn.outcome, Dead) for turn in turns):
            raise StoreError("not this one")
        return await super().put(turns)


async def nothing(delivery: Delivery[AgentMessage]) -> None:
    """A handler that is done at once."""


async def settled(receipts: list[Receipt[AgentMessage]]) -> list[str]:
    return [await receipt.settled(PATIENCE) for receipt in receipts]


# -- concurrency -------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3])
async def test_what_comes_next_is_claimed_while_an_ack_is_under_way(limit: int) -> None:
    """It leaves together with the ack; but not without end, where no ack is answered."""
    begun = 0

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        nonlocal begun
        begun += 1

    store = Silent()
    async with MessageBus(store) as bus:
        bob = await bus.register("bob")
        sent = [await bob.send("bob", n) for n in range(5 * limit)]
        async with serving(bob, handler, concurrency=limit):
            await until(lambda: begun == 2 * limit, "twice as many have begun")
            await asyncio.sleep(0.02)
            assert begun == 2 * limit
            store.may_say_so.set()
            assert await settled(sent) == ["done"] * len(sent)


@pytest.mark.parametrize("limit", [1, 3, 50])
async def test_as_many_handlers_run_as_asked_for(limit: int) -> None:
    running = most = 0

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        bob = await bus.register("bob")
        receipts = [await bob.send("bob", n) for n in range(20)]
        async with serving(bob, handler, concurrency=limit):
            assert await settled(receipts) == ["done"] * 20
    assert most == min(limit, 20)


async def test_who_end_together_are_settled_together() -> None:
    """A hundred handlers that end in one tick: four calls; each with its own answer."""

    class Counting(InMemoryA2ADeliveryStore):
        calls = 0

        async def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
            self.calls += any(turn.token for turn in turns)
            return await super().put(turns)

    async def handler(delivery: Delivery[AgentMessage]) -> Any:
        if delivery.message.content == 7:
            raise Reject("seven")
        return delivery.message.content

    store = Counting()
    async with MessageBus(store) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        sent = [await ada.send("bob", n) for n in range(100)]
        async with serving(bob, handler, concurrency=100):
            assert await settled(sent) == ["dead" if n == 7 else "done" for n in range(100)]
        assert store.calls == 4
        assert await contents(ada) == [n for n in range(100) if n != 7]


async def test_who_end_at_once_make_room_for_as_many() -> None:
    """No claim is for the few that had room beside those who are about to end."""

    class Counting(InMemoryA2ADeliveryStore):
        def __init__(self) -> None:
            super().__init__()
            self.taken: list[int] = []

        async def claim(self, claim: Claim) -> Batch:
            batch = await super().claim(claim)
            self.taken += [len(batch.leased)] if batch.leased else []
            return batch

    store = Counting()
    async with MessageBus(store) as bus:
        bob = await bus.register("bob")
        sent = [await bob.send("bob", n) for n in range(96)]
        async with serving(bob, nothing, concurrency=100):
            await asyncio.sleep(0)
            sent += [await bob.send("bob", n) for n in range(200)]
            assert await settled(sent) == ["done"] * 296
    assert len(store.taken) <= 5


async def test_a_call_for_many_is_in_the_context_of_none_of_them() -> None:
    """What a handler sets is its own affair: a store's logs, say, name no message for another."""
    handled = ContextVar("handled", default="none")
    seen: list[str] = []

    class Noting(InMemoryA2ADeliveryStore):
        async def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
            if len(turns) > 1:
                seen.append(handled.get())
            return await super().put(turns)

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        handled.set(delivery.message.id)

    async with MessageBus(Noting()) as bus:
        bob = await bus.register("bob")
        sent = [await bob.send("bob", n) for n in range(5)]
        async with serving(bob, handler, concurrency=5):
            assert await settled(sent) == ["done"] * 5
    assert seen == ["none"]


async def test_a_slow_handler_does_not_hold_up_the_others() -> None:
    async def handler(delivery: Delivery[AgentMessage]) -> None:
        await asyncio.sleep(PATIENCE if delivery.message.content == "slow" else 0)

    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "slow")
        async with serving(bob, handler, concurrency=2, grace=0):
            receipts = [await bob.send("bob", n) for n in range(20)]
            assert await settled(receipts) == ["done"] * 20


async def test_nothing_is_claimed_while_all_hands_are_busy() -> None:
    async def handler(delivery: Delivery[AgentMessage]) -> None:
        await asyncio.sleep(PATIENCE)

    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        bob = await bus.register("bob")
        for n in range(5):
            await bob.send("bob", n)
        async with serving(bob, handler, concurrency=2, grace=0):
            await asyncio.sleep(0.02)
            stats = (await bus.stats())["bob"]
            assert (stats.leased, stats.pending["all"]) == (2, 3)


# -- ending ------------------------------------------------------------------------------


async def test_drain_waits_for_handlers_and_claims_no_more() -> None:
    finished: list[Any] = []

    async def handler(delivery: Delivery[AgentMessage]) -> str:
        await asyncio.sleep(0.05)
        finished.append(delivery.message.content)
        return "answer"

    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for n in range(5):
            await ada.send("bob", n)
        async with serving(bob, handler, concurrency=2, grace=PATIENCE):
            await asyncio.sleep(0.01)
        assert finished == [0, 1]
        assert await contents(bob) == [2, 3, 4]
        assert await contents(ada) == ["answer", "answer"]


async def test_drain_ends_with_grace() -> None:
    async def handler(delivery: Delivery[AgentMessage]) -> None:
        await asyncio.sleep(PATIENCE)

    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        bob = await bus.register("bob")
        for n in range(3):
            await bob.send("bob", n)
        async with serving(bob, handler, concurrency=2, grace=0.1):
            await asyncio.sleep(0.01)
            start = time.monotonic()
        assert 0.1 <= time.monotonic() - start < PATIENCE / 4
        held = [await claimed(bob) for _ in range(3)]
        assert [(d.message.content, d.attempt) for d in held] == [(0, 1), (1, 1), (2, 1)]


async def test_what_is_being_settled_when_the_grace_ends_is_given_back() -> None:
    """Also of those who left it to another: all that nobody knows to be settled."""

    class Stuck(InMemoryA2ADeliveryStore):
        stuck = True

        async def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
            if self.stuck and any(turn.token for turn in turns):
                self.stuck = False
                await asyncio.sleep(PATIENCE)
            return await super().put(turns)

    async with MessageBus(Stuck()) as bus:
        bob = await bus.register("bob")
        for n in range(3):
            await bob.send("bob", n)
        async with serving(bob, nothing, concurrency=3, grace=0):
            await asyncio.sleep(0.01)
        held = [await claimed(bob, 1) for _ in range(3)]
        assert [(d.message.content, d.attempt) for d in held] == [(0, 1), (1, 1), (2, 1)]


async def test_a_second_cancel_ends_the_grace() -> None:
    async def handler(delivery: Delivery[AgentMessage]) -> None:
        await asyncio.sleep(PATIENCE)

    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "work")
        async with serving(bob, handler, grace=PATIENCE) as task, asyncio.timeout(PATIENCE / 4):
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.sleep(0.01)
            assert not task.done()
            task.cancel()
            await asyncio.wait({task})
        assert (await claimed(bob)).attempt == 1


async def test_a_handler_may_finish_although_cancelled() -> None:
    """A handler that catches the cancellation and returns has finished its work."""

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            await delivery.send("bob", "saved")

    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        bob = await bus.register("bob")
        receipt = await bob.send("bob", "work")
        async with serving(bob, handler, grace=0):
            await asyncio.sleep(0.01)
        assert await receipt.status() == "done"
        assert await contents(bob) == ["saved"]


async def test_serve_can_be_started_again() -> None:
    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        bob = await bus.register("bob")
        for _ in range(3):
            receipt = await bob.send("bob", "work")
            async with serving(bob, nothing):
                assert await receipt.settled(PATIENCE) == "done"


# -- what a handler may do ---------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError("x"), ZeroDivisionError(), KeyError("k"), TimeoutError(), Exception()]
)
async def test_no_exception_ends_the_worker(error: Exception) -> None:
    async def handler(delivery: Delivery[AgentMessage]) -> None:
        raise error

    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        bob = await bus.register("bob")
        receipts = [await bob.send("bob", n) for n in range(3)]
        async with serving(bob, handler, retry=RetryPolicy(max_attempts=2, base=0)):
            assert await settled(receipts) == ["dead"] * 3
        for letter in await bus.dead_letters():
            assert letter.attempts == 2
            assert type(error).__name__ in letter.error


async def test_a_handler_that_cancels_itself_fails_no_one_else() -> None:
    seen: list[int] = []

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        seen.append(delivery.attempt)
        if len(seen) == 1:
            raise asyncio.CancelledError

    async with MessageBus(InMemoryA2ADeliveryStore(), retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        receipt = await bob.send("bob", "work")
        async with serving(bob, handler):
            assert await receipt.settled(PATIENCE) == "done"
    assert seen == [1, 2]


async def test_a_time_out_cancels_the_handler() -> None:
    ended: list[str] = []

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            ended.append("cancelled")

    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        bob = await bus.register("bob")
        receipt = await bob.send("bob", "work")
        async with serving(bob, handler, timeout=0.02, retry=RetryPolicy(max_attempts=1)):
            assert await receipt.settled(PATIENCE) == "dead"
        [letter] = await bus.dead_letters()
        assert letter.error == "TimeoutError: the handler took longer than 0.02 s"
    assert ended == ["cancelled"]


async def test_retry_waits_as_long_as_it_says() -> None:
    times: list[float] = []

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        times.append(time.monotonic())
        if delivery.attempt == 1:
            raise Retry(0.1)

    async with MessageBus(InMemoryA2ADeliveryStore(), retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        receipt = await bob.send("bob", "work")
        async with serving(bob, handler):
            assert await receipt.settled(PATIENCE) == "done"
    assert times[1] - times[0] >= 0.1


async def test_retry_counts_to_the_end_and_reject_ends_at_once() -> None:
    async def handler(delivery: Delivery[AgentMessage]) -> None:
        raise Retry(0) if delivery.message.content == "retry" else Reject("no good")

    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        bob = await bus.register("bob")
        receipts = [await bob.send("bob", content) for content in ("retry", "reject")]
        async with serving(bob, handler):
            assert await settled(receipts) == ["dead", "dead"]
        letters = {x.message.content: x for x in await bus.dead_letters() if x.message}
        assert (letters["retry"].reason, letters["retry"].attempts) == ("exhausted", 5)
        assert (letters["reject"].reason, letters["reject"].error) == ("rejected", "no good")


async def test_a_handler_may_settle_by_itself() -> None:
    async def handler(delivery: Delivery[AgentMessage]) -> str:
        await (delivery.reject("by hand") if delivery.message.content else delivery.ack())
        return "answer"

    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        receipts = [await ada.send("bob", n) for n in range(2)]
        async with serving(bob, handler):
            assert await settled(receipts) == ["done", "dead"]
            message = await ada.receive(timeout=PATIENCE)
        assert message is not None
        assert message.content == "answer"


async def test_a_lease_lost_to_another_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(delivery: Delivery[AgentMessage]) -> str:
        if delivery.attempt == 1:
            twin = await bob.resume(delivery.token)
            await twin.nack(delay=0)  # as if the lease had ended
            second = await claimed(bob)
            await second.ack()
        return "never"

    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        receipt = await ada.send("bob", "work")
        async with serving(bob, handler) as task:
            await until(lambda: "not settled" in caplog.text, "the loss is logged")
            assert not task.done()
        assert await receipt.status() == "done"
        assert await contents(ada) == []


async def test_any_async_callable_is_a_handler() -> None:
    class Agent:
        async def __call__(self, delivery: Delivery[AgentMessage]) -> None: ...

        async def handle(self, name: str, delivery: Delivery[AgentMessage]) -> None: ...

    agent = Agent()
    handlers = [agent, partial(agent.handle, "x"), lambda d: agent.handle("x", d)]
    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        bob = await bus.register("bob")
        for handler in handlers:
            receipt = await bob.send("bob", "work")
            async with serving(bob, handler):
                assert await receipt.settled(PATIENCE) == "done"
        with pytest.raises(ConfigurationError, match="async"):
            await bob.serve("no function")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="async"):
            await bob.serve(print)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"concurrency": 0}, {"timeout": 0}, {"lease": -1}, {"grace": -1}]
)
async def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        bob = await bus.register("bob")
        with pytest.raises(ConfigurationError):
            await bob.serve(nothing, **options)


async def test_an_unregistered_name_cannot_be_served() -> None:
    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        bob = await bus.register("bob")
        await bus.unregister("bob")
        with pytest.raises(UnknownAgentError):
            await bob.serve(nothing)


async def test_closing_the_bus_ends_the_worker() -> None:
    async def handler(delivery: Delivery[AgentMessage]) -> str:
        await asyncio.sleep(0.05)
        return "too late"

    bus = MessageBus(InMemoryA2ADeliveryStore())
    bob = await bus.register("bob")
    await bob.send("bob", "work")
    task = asyncio.create_task(bob.serve(handler))
    await asyncio.sleep(0.01)
    start = time.monotonic()
    await bus.aclose()
    with pytest.raises(UsageError, match="closed"):
        async with asyncio.timeout(PATIENCE):
            await task
    assert time.monotonic() - start < PATIENCE / 4


# -- answers -----------------------------------------------------------------------------


async def test_two_agents_do_not_thank_each_other_for_ever() -> None:
    seen: list[Any] = []

    async def handler(delivery: Delivery[AgentMessage]) -> str:
        seen.append((delivery.message.sender, delivery.message.content))
        return "thank you"

    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        async with serving(ada, handler), serving(bob, handler):
            await ada.send("bob", "hello")
            await until(lambda: len(seen) == 2, "the answer is handled")
            await asyncio.sleep(0.02)
    assert seen == [("ada", "hello"), ("bob", "thank you")]


async def test_an_answer_that_cannot_be_stored_is_a_dead_letter() -> None:
    async def handler(delivery: Delivery[AgentMessage]) -> Any:
        return delivery.message.content

    async with MessageBus(InMemoryA2ADeliveryStore(), max_bytes=2000) as bus:
        ada, bob = await bus.register("ada", capacity=1), await bus.register("bob")
        await ada.send("ada", "fills it")
        full = await ada.send("bob", "to a full mailbox")
        gone = await bus.deliver(AgentMessage("nobody", "bob", "to nobody"))
        async with serving(bob, handler):
            assert await settled([full, gone]) == ["done", "done"]
        letters = {x.agent: x for x in await bus.dead_letters()}
        assert letters["nobody"].reason == "undeliverable"
        assert letters["ada"].reason == "undeliverable"
        assert letters["ada"].message is not None
        assert letters["ada"].message.content == "to a full mailbox"


async def test_an_answer_that_is_not_json_fails_the_attempt() -> None:
    async def handler(delivery: Delivery[AgentMessage]) -> Any:
        return {"a": object()}

    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        receipt = await ada.send("bob", "work")
        async with serving(bob, handler, retry=AT_ONCE):
            assert await receipt.settled(PATIENCE) == "dead"
        [letter] = await bus.dead_letters()
        assert "content" in letter.error


# -- a store that fails ------------------------------------------------------------------


async def test_a_store_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    store = Failing()
    async with MessageBus(store) as bus:
        bob = await bus.register("bob")
        receipt = await bob.send("bob", "work")
        store.failures = {"claim": 2, "put": 2, "put, answer lost": 0}
        with caplog.at_level(logging.WARNING, "afk.messaging"):
            async with serving(bob, nothing):
                await until(lambda: not any(store.failures.values()), "all failures were met")
                assert await receipt.settled(PATIENCE) == "done"
    assert caplog.text.count("the store failed, trying again") == 4


async def test_one_that_no_store_takes_holds_up_no_other() -> None:
    async def handler(delivery: Delivery[AgentMessage]) -> None:
        if delivery.message.content == 1:
            raise Reject

    async with MessageBus(Picky()) as bus:
        bob = await bus.register("bob")
        sent = [await bob.send("bob", n) for n in range(3)]
        async with serving(bob, handler, concurrency=3, grace=0):
            assert await settled(sent[::2]) == ["done", "done"]
        assert (await claimed(bob)).message.content == 1


async def test_what_no_store_takes_leaves_room_for_others() -> None:
    """Each eighth is refused for ever, and takes up its own room only."""

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        if delivery.message.content % 8 == 0:
            raise Reject

    async with MessageBus(Picky()) as bus:
        bob = await bus.register("bob")
        sent = [await bob.send("bob", n) for n in range(64)]
        good = [receipt for n, receipt in enumerate(sent) if n % 8]
        async with serving(bob, handler, concurrency=8, grace=0):
            assert await settled(good) == ["done"] * 56


@pytest.mark.parametrize("error", [ValueError("unforeseen"), InvalidMessageError("not this one")])
async def test_an_error_nobody_foresaw_is_one_messages_own(error: Exception) -> None:
    """It comes again, as if its handler had failed; those it shares a call with are settled."""

    class Broken(InMemoryA2ADeliveryStore):
        async def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
            if any(len(turn.sends) > 1 for turn in turns):
                raise error
            return await super().put(turns)

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        if delivery.message.content == 2 and delivery.attempt == 1:
            await delivery.send("bob", "sent")
            await delivery.send("bob", "sent")

    async with MessageBus(Broken(), retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        sent = [await bob.send("bob", n) for n in range(5)]
        async with serving(bob, handler, concurrency=5, grace=0):
            assert await settled(sent) == ["done"] * 5
        found = [each for each in await bus.messages() if each.id == sent[2].id]
        assert [(each.attempts, each.error) for each in found] == [
            (2, f"{type(error).__name__}: {error}")
        ]


async def test_who_cancels_a_handlers_task_cancels_no_other() -> None:
    tries: dict[int, int] = {}

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        number: int = delivery.message.content
        tries[number] = tries.get(number, 0) + 1
        task = asyncio.current_task()
        assert task is not None
        if number == 0:
            task.cancel()

    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        bob = await bus.register("bob")
        sent = [await bob.send("bob", n) for n in range(5)]
        async with serving(bob, handler, concurrency=5):
            assert await settled(sent) == ["done"] * 5
    assert tries == dict.fromkeys(range(5), 1)


async def test_a_failing_store_is_not_hammered() -> None:
    store = Failing()
    async with MessageBus(store) as bus:
        bob = await bus.register("bob")
        store.failures["claim"] = 1_000_000
        async with serving(bob, nothing):
            await asyncio.sleep(0.3)
            assert store.calls < 40


async def test_a_settle_whose_answer_was_lost_is_done_once() -> None:
    """The outcome is unknown, so it is settled again, which is refused; the sends left once."""
    store = Failing()

    async def handler(delivery: Delivery[AgentMessage]) -> str:
        await delivery.send("ada", "sent")
        store.failures["put, answer lost"] = 1
        return "answer"

    async with MessageBus(store) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        receipt = await ada.send("bob", "work")
        async with serving(bob, handler):
            await until(lambda: store.failures["put, answer lost"] == 0, "the answer was lost")
            assert await receipt.settled(PATIENCE) == "done"
        assert await contents(ada) == ["sent", "answer"]


async def test_a_lost_ack_after_receive_is_tried_again() -> None:
    """`receive` of typed content settles after the fact; that settle may fail once."""
    store = Failing()
    async with MessageBus(store) as bus:
        bob = await bus.register("bob", type=int)
        receipt = await bob.send("bob", 7)
        store.failures["put"] = 1
        message = await bob.receive(timeout=PATIENCE)
        assert message is not None
        with pytest.raises(StoreError):
            await bob.send("bob", 8)
        await bob.send("bob", 9)
        assert await receipt.status() == "done"


async def test_a_store_error_says_what_to_send_again() -> None:
    store = Failing()
    async with MessageBus(store) as bus:
        bob = await bus.register("bob")
        store.failures["put, answer lost"] = 1
        with pytest.raises(StoreError) as lost:
            await bob.send("bob", "work", idempotency_key="k")
        assert (lost.value.key, lost.value.message.content) == ("k", "work")
        again = await bob.send("bob", "work", idempotency_key="k")
        assert again.duplicate
        assert await contents(bob) == ["work"]


async def test_a_bare_delivery_shows_the_stores_error() -> None:
    store = Failing()
    async with MessageBus(store) as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "work")
        delivery = await claimed(bob)
        store.failures["put"] = 1
        with pytest.raises(StoreError):
            await delivery.ack()
        await delivery.ack()
        with pytest.raises(LeaseLostError):
            await delivery.ack()


async def test_an_answer_tried_again_is_the_same_message() -> None:
    ids: list[str] = []

    class Noting(Failing):
        async def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
            ids.extend(send.id for turn in turns if turn.token for send in turn.sends)
            return await super().put(turns)

    store = Noting()

    async def handler(delivery: Delivery[AgentMessage]) -> str:
        store.failures["put"] = 2
        return "answer"

    async with MessageBus(store) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        receipt = await ada.send("bob", "work")
        async with serving(bob, handler):
            assert await receipt.settled(PATIENCE) == "done"
        assert await contents(ada) == ["answer"]
    assert len(ids) == 3
    assert len(set(ids)) == 1


async def test_acks_are_tried_again_without_another_call() -> None:
    store = Failing()
    async with MessageBus(store) as bus:
        bob = await bus.register("bob", type=int)
        await bob.send("bob", 7)
        store.failures["put"] = 2
        assert await bob.receive(timeout=PATIENCE) is not None
        await until(lambda: store.failures["put"] == 0, "the ack is tried again")
        await asyncio.sleep(1.1)  # the second pause
        assert (await store.counts("bob"))["bob"].leased == 0


async def test_closing_tries_the_acks_once_more(caplog: pytest.LogCaptureFixture) -> None:
    for failures, leased in ((1, 0), (9, 1)):
        store = Failing()
        bus = MessageBus(store)
        bob = await bus.register("bob", type=int)
        await bob.send("bob", 7)
        store.failures["put"] = failures
        assert await bob.receive(timeout=PATIENCE) is not None
        await asyncio.sleep(0.01)  # the first failure
        await bus.aclose()
        store.failures["put"] = 0
        assert (await store.counts("bob"))["bob"].leased == leased
        assert ("could not be settled" in caplog.text) == bool(leased)


async def test_a_cancelled_send_does_not_keep_the_acks_before_it() -> None:
    store = Slow()
    async with MessageBus(store) as bus:
        bob = await bus.register("bob", type=int)
        await bob.send("bob", 7)
        assert await bob.receive(timeout=PATIENCE) is not None
        store.gates["put"].clear()
        sending = asyncio.create_task(bob.send("bob", 8))
        await asyncio.sleep(0)  # it takes the ack along
        await cancelled(sending)
        store.gates["put"].set()
        await asyncio.sleep(0.01)
        assert (await store.counts("bob"))["bob"].leased == 0


async def test_a_block_whose_ack_fails_holds_no_longer_than_its_lease() -> None:
    store = Failing()
    async with MessageBus(store, lease=0.2, retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "work")
        delivery = await claimed(bob)
        with pytest.raises(StoreError):
            async with delivery:
                store.failures["put"] = 1
        assert (await claimed(bob, PATIENCE)).attempt == 2


async def test_a_block_cancelled_in_its_ack_gives_back() -> None:
    store = Slow()
    async with MessageBus(store) as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "work")
        delivery = await claimed(bob)

        async def handle() -> None:
            async with delivery:
                store.gates["put"].clear()

        task = asyncio.create_task(handle())
        await asyncio.sleep(0.01)
        await cancelled(task)
        store.gates["put"].set()
        assert (await claimed(bob, PATIENCE)).attempt == 1


# -- a bus that is closed meanwhile ------------------------------------------------------


class Slow(InMemoryA2ADeliveryStore):
    """A memory store whose verbs wait for a gate: `claim` after it took effect."""

    capabilities = Capabilities(durability="memory", renews_when_blocked=True)

    def __init__(self) -> None:
        super().__init__()
        self.gates = {verb: asyncio.Event() for verb in ("open", "put", "claim", "close")}
        for gate in self.gates.values():
            gate.set()
        self.opens = 0

    async def open(self) -> None:
        await self.gates["open"].wait()
        self.opens += 1

    async def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
        await self.gates["put"].wait()
        return await super().put(turns)

    async def claim(self, claim: Claim) -> Batch:
        batch = await super().claim(claim)
        await self.gates["claim"].wait()
        return batch

    async def close(self) -> None:
        self.opens -= 1
        await self.gates["close"].wait()


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task}, timeout=PATIENCE)
    assert task.cancelled()


async def test_a_second_close_waits_for_the_first() -> None:
    store = Slow()
    bus = MessageBus(store)
    await bus.agents()
    store.gates["close"].clear()
    closing = [asyncio.create_task(bus.aclose()) for _ in range(2)]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in closing)
    store.gates["close"].set()
    await asyncio.gather(*closing)
    assert store.opens == 0


async def test_what_is_opened_while_the_bus_is_closed_is_closed() -> None:
    store = Slow()
    store.gates["open"].clear()
    bus = MessageBus(store)
    calls = [asyncio.create_task(bus.register(name)) for name in ("ada", "bob")]
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(bus.aclose())
    await asyncio.sleep(0.01)
    store.gates["open"].set()
    await closing
    for call in calls:
        with pytest.raises(UsageError, match="closed"):
            await call
    assert store.opens == 0


async def test_what_is_claimed_while_the_bus_is_closed_is_given_back() -> None:
    store = Slow()
    bus = MessageBus(store)
    bob = await bus.register("bob", type=int)
    await bob.send("bob", 7)
    store.gates["claim"].clear()
    receiving = asyncio.create_task(bob.receive())
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(bus.aclose())
    await asyncio.sleep(0.01)
    store.gates["claim"].set()
    await closing
    with pytest.raises(UsageError, match="closed"):
        await receiving
    async with MessageBus(store) as other:
        again = await claimed(await other.register("bob"))
        assert (again.message.content, again.attempt) == (7, 1)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 has no eager tasks")
async def test_handlers_may_run_at_once_when_their_task_is_made() -> None:
    eager: Any = vars(asyncio)["eager_task_factory"]
    asyncio.get_running_loop().set_task_factory(eager)
    handled: list[object] = []

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        handled.append(delivery.message.content)

    async with MessageBus(InMemoryA2ADeliveryStore()) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        async with serving(bob, handler, concurrency=2):
            for number in range(20):
                await ada.send("bob", number)
            await until(lambda: len(handled) == 20, "all are handled")
    assert handled == list(range(20))
