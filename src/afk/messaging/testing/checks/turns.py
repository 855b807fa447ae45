"""Promises 5 and 6: a turn is atomic, and with a transaction its effects are too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ...delivery import Delivery
from ...errors import (
    LeaseLostError,
    MailboxFullError,
    UnknownAgentError,
    UsageError,
)
from ...messages import AgentMessage
from ..clock import FakeClock
from ..expect import raises
from ..steps import AT_ONCE, PATIENCE, Effects, claimed, contents, serving
from ..subject import Subject


async def check_sends_leave_with_the_ack(subject: Subject) -> None:
    """What is sent through a delivery leaves when it is acked, all at once and in order, as the
    very messages that `send` and `reply` returned; until then nobody sees any of it."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", "work")
        delivery = await claimed(bob, PATIENCE)
        sent = [await delivery.send("ada", n) for n in range(3)] + [await delivery.reply("done")]
        assert await ada.message_count() == 0
        assert await bus.status(sent[0].id) is None
        await delivery.ack()
        got = [await ada.receive(timeout=PATIENCE) for _ in sent]
        assert got == sent
        answer = sent[-1]
        assert (answer.sender, answer.causation_id) == ("bob", delivery.message.id)


async def check_a_failed_attempt_sends_nothing(subject: Subject) -> None:
    """nack, reject, an exception and giving back drop what the attempt had sent."""
    async with subject.bus(retry=AT_ONCE) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", "work")
        endings: list[Callable[[Delivery[AgentMessage]], Awaitable[Any]]] = [
            lambda delivery: delivery.nack("failed"),
            lambda delivery: delivery.retry(0, counts=False),
            lambda delivery: delivery.give_back(),
            lambda delivery: delivery.reject("never"),
        ]
        with raises(ZeroDivisionError):
            async with await claimed(bob, PATIENCE) as delivery:
                await delivery.send("ada", "never")
                raise ZeroDivisionError
        for end in endings:
            delivery = await claimed(bob, PATIENCE)
            await delivery.send("ada", "never")
            await delivery.reply("never")
            await end(delivery)
        assert await contents(ada) == []


async def check_a_turn_is_all_or_nothing(subject: Subject) -> None:
    """When one of a turn's sends is refused, for an unknown or a full mailbox, the ack raises
    that, none of the others leaves, and the message is still its holder's."""
    async with subject.bus(retry=AT_ONCE) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await bus.register("tiny", capacity=1)
        await ada.send("tiny", "fills it")
        receipt = await ada.send("bob", "work")
        for name, kind in (("nobody", UnknownAgentError), ("tiny", MailboxFullError)):
            delivery = await claimed(bob, PATIENCE)
            for recipient in ("ada", name, "ada"):
                await delivery.send(recipient, "never")
            with raises(kind, name):
                await delivery.ack()
            assert await receipt.status() == "leased"
            await delivery.nack("refused")
        assert await contents(ada) == []
        await (await claimed(bob, PATIENCE)).ack()


async def check_a_lost_lease_sends_nothing(subject: Subject) -> None:
    """The sends of a turn whose lease went to another consumer do not leave, and those of the
    new holder do."""
    clock = FakeClock()
    async with subject.bus(clock, retry=AT_ONCE) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", "work")
        slow = await claimed(bob, lease=10)
        await slow.reply("of the first")
        clock.advance(11)
        quick = await claimed(bob, lease=10)
        await quick.reply("of the second")
        with raises(LeaseLostError):
            await slow.ack()
        await quick.ack()
        assert await contents(ada) == ["of the second"]


async def check_a_refused_send_fails_the_attempt(subject: Subject) -> None:
    """Under `serve` a turn with an unknown recipient fails like an exception: it is tried again
    and ends as a dead letter that names the recipient."""
    seen: list[int] = []

    async def handler(delivery: Delivery[AgentMessage]) -> str:
        seen.append(delivery.attempt)
        await delivery.send("ada", "never")
        await delivery.send("nobody", "hi")
        return "never"

    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        receipt = await ada.send("bob", "work")
        async with serving(bob, handler, retry=AT_ONCE):
            assert await receipt.settled(PATIENCE) == "dead"
        [letter] = await bus.dead_letters("bob")
        assert seen == [1, 2, 3, 4, 5]
        assert (letter.reason, letter.attempts) == ("exhausted", 5)
        assert "nobody" in letter.error
        assert await contents(ada) == []


async def check_an_answer_never_undoes_finished_work(subject: Subject) -> None:
    """A handler's result that cannot be stored becomes a dead letter `undeliverable`; the
    message is done, and what the handler sent leaves."""

    async def handler(delivery: Delivery[AgentMessage]) -> str:
        await delivery.send("ada", "sent")
        return "answer"

    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        stranger = AgentMessage("stranger", "bob", "work")
        receipt = await bus.deliver(stranger)
        async with serving(bob, handler):
            assert await receipt.settled(PATIENCE) == "done"
        [letter] = await bus.dead_letters(reason="undeliverable")
        assert letter.message is not None
        assert (letter.agent, letter.message.content) == ("stranger", "answer")
        assert letter.message.causation_id == stranger.id
        assert await contents(ada) == ["sent"]


async def check_an_answer_without_room_is_undeliverable(subject: Subject) -> None:
    """So it is when the asking agent's mailbox is full: the message is done, and its answer a
    dead letter `undeliverable`."""

    async def handler(delivery: Delivery[AgentMessage]) -> str:
        return "answer"

    async with subject.bus() as bus:
        ada, bob = await bus.register("ada", capacity=1), await bus.register("bob")
        await bob.send("ada", "fills it")
        receipt = await ada.send("bob", "work")
        async with serving(bob, handler):
            assert await receipt.settled(PATIENCE) == "done"
        [letter] = await bus.dead_letters("ada")
        assert letter.reason == "undeliverable"
        assert letter.message is not None
        assert letter.message.content == "answer"
        assert await contents(ada) == ["fills it"]


async def check_a_result_is_the_answer(subject: Subject) -> None:
    """A handler's result other than None leaves with the ack as the answer, correlated and
    caused by its message; an answer is not answered, so two agents do not thank for ever."""

    async def thank(delivery: Delivery[AgentMessage]) -> str:
        return f"thanks for {delivery.message.content}"

    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        receipt = await ada.send("bob", "work")
        async with serving(ada, thank), serving(bob, thank):
            assert await receipt.settled(PATIENCE) == "done"
            [_, answer] = await bus.messages(correlation_id=receipt.id)
            assert answer.message is not None
            assert answer.message.content == "thanks for work"
            assert answer.message.causation_id == receipt.id
            behind = await bob.send("ada", "behind the answer")
            assert await behind.settled(PATIENCE) == "done"
        chain = [entry.message for entry in await bus.trace(receipt.id)]
        assert [message and message.sender for message in chain] == ["ada", "bob"]


async def check_a_sub_request_is_made_once(subject: Subject) -> None:
    """`delivery.request` has a key of its own: a repeated turn gets the first answer, whatever
    it asks now, and the other agent is asked once for each call."""
    asked: list[Any] = []
    learned: list[Any] = []

    async def know(delivery: Delivery[AgentMessage]) -> str:
        asked.append(delivery.message.content)
        return f"answer {len(asked)}"

    async def ask(delivery: Delivery[AgentMessage]) -> None:
        for call in ("a", "b"):
            question = f"{call}, attempt {delivery.attempt}"
            answer = await delivery.request("oracle", question, timeout=PATIENCE)
            learned.append(answer.content)
        if delivery.attempt == 1:
            raise ConnectionError("after the answers")

    async with subject.bus(retry=AT_ONCE) as bus:
        bob, oracle = await bus.register("bob"), await bus.register("oracle")
        receipt = await bob.send("bob", "work")
        async with serving(oracle, know), serving(bob, ask):
            assert await receipt.settled(PATIENCE) == "done"
    assert asked == ["a, attempt 1", "b, attempt 1"]
    assert learned == ["answer 1", "answer 2"] * 2


async def check_a_redriven_turn_asks_anew(subject: Subject) -> None:
    """A redriven message is a new turn: its sub-requests have new keys and get new answers."""
    answers: list[Any] = []

    async def know(delivery: Delivery[AgentMessage]) -> str:
        return f"answer to {delivery.message.content}"

    async def ask(delivery: Delivery[AgentMessage]) -> None:
        answer = await delivery.request("oracle", len(answers), timeout=PATIENCE)
        answers.append(answer.content)
        if len(answers) == 1:
            await delivery.reject("not yet")

    async with subject.bus(retry=AT_ONCE) as bus:
        bob, oracle = await bus.register("bob"), await bus.register("oracle")
        receipt = await bob.send("bob", "work")
        async with serving(oracle, know), serving(bob, ask):
            assert await receipt.settled(PATIENCE) == "dead"
            assert await bus.redrive(receipt.id) == 1
            assert await receipt.settled(PATIENCE) == "done"
    assert answers == ["answer to 0", "answer to 1"]


async def check_a_mailbox_send_is_no_part_of_the_turn(subject: Subject) -> None:
    """`mailbox.send` inside a handler leaves at once, whatever becomes of the attempt; it
    carries the correlation and one hop more."""

    async with subject.bus(retry=AT_ONCE) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", "work")
        with raises(ZeroDivisionError):
            async with await claimed(bob, PATIENCE) as delivery:
                await bob.send("ada", "at once")
                assert await ada.message_count() == 1
                raise ZeroDivisionError
        message = await ada.receive(timeout=PATIENCE)
        assert message is not None
        assert message.correlation_id == delivery.message.id
        assert (message.causation_id, message.hops) == (delivery.message.id, 1)


async def check_a_sealed_turn_takes_no_more(subject: Subject) -> None:
    """Once a delivery is settled, nothing more can be sent with it."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "work")
        delivery = await claimed(bob, PATIENCE)
        await delivery.ack()
        with raises(LeaseLostError):
            await delivery.send("bob", "never")
        with raises(LeaseLostError):
            await delivery.reply("never")
        assert await contents(bob) == []


# -- effects: the store's own transaction ------------------------------------------------


async def check_no_transaction_is_said(subject: Subject) -> None:
    """On a store without transactions `delivery.transaction()` is a UsageError, not a promise
    that is not kept; the message stays its holder's."""
    if subject.capabilities.transactions:
        return
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        receipt = await bob.send("bob", "work")
        delivery = await claimed(bob, PATIENCE)
        with raises(UsageError):
            async with delivery.transaction():
                raise AssertionError("a transaction was opened")
        await delivery.ack()
        assert await receipt.status() == "done"


async def check_effects_commit_with_the_turn(subject: Subject) -> None:
    """Leaving `delivery.transaction()` commits the handler's writes, its sends and the ack
    together; the delivery is settled then."""
    if not subject.capabilities.transactions:
        return
    effects = Effects()
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        receipt = await ada.send("bob", "work")
        delivery = await claimed(bob, PATIENCE)
        async with delivery.transaction() as conn:
            await effects.create(conn)
            await effects.add(conn, delivery.message.id)
            await delivery.reply("done")
        assert delivery.settled
        assert await receipt.status() == "done"
        assert await contents(ada) == ["done"]
        with raises(LeaseLostError):
            await delivery.ack()
        await bob.send("bob", "look")
        assert await _written(effects, await claimed(bob, PATIENCE)) == [receipt.id]


async def check_a_failed_transaction_undoes_everything(subject: Subject) -> None:
    """An exception in the block, a refused send, or a lease lost to another consumer: neither
    effect nor send nor ack happens, and the connection is usable for the next."""
    if not subject.capabilities.transactions:
        return
    effects = Effects()
    clock = FakeClock()
    async with subject.bus(clock, retry=AT_ONCE) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await bob.send("bob", "prepare")
        async with (await claimed(bob)).transaction() as conn:
            await effects.create(conn)
        await ada.send("bob", "work")
        delivery = await claimed(bob, lease=10)
        with raises(ZeroDivisionError):
            await _affect(effects, delivery, error=ZeroDivisionError())
        await delivery.nack()
        delivery = await claimed(bob, lease=10)
        with raises(UnknownAgentError):
            await _affect(effects, delivery, recipient="nobody")
        await delivery.nack()
        delivery = await claimed(bob, lease=10)
        clock.advance(11)
        other = await claimed(bob, lease=10)
        with raises(LeaseLostError):
            await _affect(effects, delivery)
        assert await contents(ada) == []
        assert await _written(effects, other) == []


async def check_an_undone_transaction_leaves_no_sends(subject: Subject) -> None:
    """What was sent in a block that failed does not leave with a later ack of the same attempt;
    what was sent before the block does."""
    if not subject.capabilities.transactions:
        return
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", "work")
        delivery = await claimed(bob, PATIENCE)
        await delivery.send("ada", "before")
        with raises(ZeroDivisionError):
            async with delivery.transaction():
                await delivery.send("ada", "inside")
                raise ZeroDivisionError
        with raises(UnknownAgentError):
            async with delivery.transaction():
                await delivery.send("nobody", "inside")
        await delivery.ack()
        assert await contents(ada) == ["before"]


async def check_a_call_that_would_deadlock_raises(subject: Subject) -> None:
    """A bus write from inside the block, which would wait for the block's own transaction,
    raises UsageError; after the block it works again."""
    if not subject.capabilities.transactions:
        return
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "work")
        delivery = await claimed(bob, PATIENCE)
        async with delivery.transaction():
            with raises(UsageError):
                await bob.send("bob", "deadlock")
            with raises(UsageError):
                await bob.receive(timeout=0)
            with raises(UsageError):
                await delivery.ack()
        assert delivery.settled
        await bob.send("bob", "after")
        assert await contents(bob) == ["after"]


async def check_serve_and_transactions_agree(subject: Subject) -> None:
    """A handler that ends its turn in a transaction is not settled again by `serve`; its result
    is still the answer."""
    if not subject.capabilities.transactions:
        return
    effects = Effects()

    async def handler(delivery: Delivery[AgentMessage]) -> str:
        async with delivery.transaction() as conn:
            await effects.create(conn)
            await effects.add(conn, delivery.message.id)
        return "answer"

    async with subject.bus(retry=AT_ONCE) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        async with serving(bob, handler):
            receipts = [await ada.send("bob", n) for n in range(5)]
            for receipt in receipts:
                assert await receipt.settled(PATIENCE) == "done"
            for _ in receipts:
                message = await ada.receive(timeout=PATIENCE)
                assert message is not None
                assert message.content == "answer"
        await bob.send("bob", "look")
        found = await _written(effects, await claimed(bob, PATIENCE))
        assert sorted(found) == sorted(receipt.id for receipt in receipts)


async def _affect(
    effects: Effects,
    delivery: Delivery[AgentMessage],
    recipient: str = "ada",
    error: Exception | None = None,
) -> None:
    """A turn with an effect and a send."""
    async with delivery.transaction() as conn:
        await effects.add(conn, delivery.message.id)
        await delivery.send(recipient, "sent")
        if error is not None:
            raise error


async def _written(effects: Effects, delivery: Delivery[AgentMessage]) -> list[str]:
    """What the committed turns wrote; settles the delivery it looks through."""
    async with delivery.transaction() as conn:
        return await effects.all(conn)
