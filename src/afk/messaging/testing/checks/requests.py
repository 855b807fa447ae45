"""Promises 2 and 9 for requests: an answer belongs to its request, and there is one of it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from msgspec.structs import replace

from ...bus import MessageBus
from ...delivery import Delivery
from ...errors import RequestFailedError, RequestTimeoutError
from ...messages import AgentMessage, InternalA2AEnvelope
from ...protocol import InternalA2AProtocol
from ...store import Send, Turn
from ..clock import FakeClock
from ..expect import raises
from ..processes import hear, run, say
from ..steps import PATIENCE, claimed, contents, serving, until
from ..subject import Subject


async def echo(delivery: Delivery[AgentMessage]) -> Any:
    """Answer with what was asked."""
    return {"echo": delivery.message.content}


# -- what answers a request --------------------------------------------------------------


async def check_a_handlers_result_answers(subject: Subject) -> None:
    """What a handler returns for a request is its answer, correlated and caused by it."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        async with serving(bob, echo):
            answer = await ada.request("bob", "q", timeout=PATIENCE)
        assert (answer.sender, answer.recipient) == ("bob", "ada")
        assert answer.content == {"echo": "q"}
        assert answer.causation_id == answer.correlation_id


async def check_a_reply_answers(subject: Subject) -> None:
    """What `reply()` makes answers the request, sent with the ack or by `deliver`."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        asking = asyncio.create_task(ada.request("bob", "one", timeout=PATIENCE))
        delivery = await claimed(bob, PATIENCE)
        await delivery.reply("with the ack")
        await delivery.ack()
        assert (await asking).content == "with the ack"
        asking = asyncio.create_task(ada.request("bob", "two", timeout=PATIENCE))
        message = await bob.receive(timeout=PATIENCE)
        assert message is not None
        await bus.deliver(message.reply("by hand"))
        assert (await asking).content == "by hand"


async def check_a_response_envelope_answers(subject: Subject) -> None:
    """A response envelope with the request's id as its causation_id answers it, however it was
    made."""
    async with subject.bus() as bus:
        protocol = InternalA2AProtocol(bus)
        ada, bob = await bus.register("ada"), await protocol.register("bob")
        asking = asyncio.create_task(ada.request("bob", "q", timeout=PATIENCE))
        question = await bob.receive(timeout=PATIENCE)
        assert question is not None
        await protocol.send(
            InternalA2AEnvelope(
                message_type="response",
                run_id="",
                thread_id="",
                conversation_id="",
                correlation_id="any",
                idempotency_key="own",
                source_agent="bob",
                target_agent="ada",
                payload={"a": 1},
                causation_id=question.id,
            )
        )
        assert (await asking).content == {"a": 1}


async def check_any_message_sent_back_is_no_answer(subject: Subject) -> None:
    """A message sent back, even under the request's correlation id, is mail and no answer."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        asking = asyncio.create_task(ada.request("bob", "q", timeout=PATIENCE))
        delivery = await claimed(bob, PATIENCE)
        await bob.send("ada", "by the way", correlation_id=delivery.message.id)
        await delivery.send("ada", "on the way")
        await delivery.reply("the answer")
        await delivery.ack()
        assert (await asking).content == "the answer"
        assert await contents(ada) == ["by the way", "on the way"]


async def check_an_answer_is_not_mail(subject: Subject) -> None:
    """An answer reaches its waiter, and no consumer of the requester's name can take it."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        taken = asyncio.create_task(ada.receive(timeout=PATIENCE))
        async with serving(bob, echo):
            answer = await ada.request("bob", "q", timeout=PATIENCE)
        assert answer.content == {"echo": "q"}
        assert await ada.message_count() == 0
        assert not taken.done()
        await ada.send("ada", "mail")
        message = await taken
        assert message is not None
        assert message.content == "mail"


async def check_answers_find_their_requests(subject: Subject) -> None:
    """Many requests under way at once each get their own answer, in whatever order they come."""
    number = 20
    async with subject.bus() as bus, subject.bus() as other:
        ada, bob = await bus.register("ada"), await other.register("bob")
        asking = [
            asyncio.create_task(ada.request("bob", i, timeout=PATIENCE)) for i in range(number)
        ]
        held = [await claimed(bob, PATIENCE) for _ in range(number)]
        for delivery in reversed(held):
            await delivery.reply(delivery.message.content)
            await delivery.ack()
        answers = await asyncio.gather(*asking)
        assert [answer.content for answer in answers] == list(range(number))


async def serve_echo(bus: MessageBus) -> None:
    """Answer whatever is asked until told to stop."""
    bob = await bus.register("bob")
    async with serving(bob, echo):
        say("ready")
        await asyncio.to_thread(hear)


async def check_an_answer_comes_from_another_process(subject: Subject) -> None:
    """An answer reaches its waiter wherever it is (asked only of a place that other processes
    can reach)."""
    if subject.url is None:
        return
    async with subject.bus() as bus, run(subject, serve_echo) as server:
        await server.line()
        ada = await bus.register("ada")
        for n in range(3):
            answer = await ada.request("bob", n, timeout=PATIENCE)
            assert answer.content == {"echo": n}
        await server.tell("stop")
        assert await server.wait() == 0


async def check_answers_to_plain_sends_are_mail(subject: Subject) -> None:
    """What answers a plain send waits in the sender's mailbox like any message, and a result
    for it is not answered again."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        sent = await ada.send("bob", "hello")
        async with serving(bob, echo):
            message = await ada.receive(timeout=PATIENCE)
            assert message is not None
            assert (message.content, message.causation_id) == ({"echo": "hello"}, sent.id)
            thanks = await bus.deliver(message.reply("thanks"))
            assert await thanks.settled(timeout=PATIENCE) == "done"
        assert await ada.message_count() == 0


# -- one answer for a request ------------------------------------------------------------


async def check_a_repeated_request_gets_the_first_answer(subject: Subject) -> None:
    """A request repeated with its key gets the first one's answer: while it is still being
    worked on, and after; it is worked on once."""
    calls = []
    started, go_on = asyncio.Event(), asyncio.Event()

    async def handler(delivery: Delivery[AgentMessage]) -> int:
        calls.append(delivery.message.id)
        started.set()
        await go_on.wait()
        return len(calls)

    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")

        async def ask() -> AgentMessage:
            return await ada.request("bob", "q", timeout=PATIENCE, idempotency_key="k")

        async with serving(bob, handler, concurrency=2):
            first = asyncio.create_task(ask())
            await started.wait()
            second = asyncio.create_task(ask())
            go_on.set()
            answers = [await first, await second, await ask()]
        assert answers[0] == answers[1] == answers[2]
        assert len(calls) == 1


async def ask_once(bus: MessageBus, key: str) -> None:
    """Make the request and say its answer's id."""
    ada = await bus.register("ada")
    say("ready")
    answer = await ada.request("bob", "q", timeout=PATIENCE, idempotency_key=key)
    say(answer.id)


async def check_a_request_is_repeated_by_another_process(subject: Subject) -> None:
    """The requester may be killed: another process that repeats the request gets the answer to
    the first (asked only of a place that other processes can reach)."""
    if subject.url is None:
        return
    async with subject.bus() as bus, run(subject, ask_once, "k") as first:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        delivery = await claimed(bob, PATIENCE)
        first.kill()
        await first.wait()
        async with run(subject, ask_once, "k") as second:
            await second.line()
            reply = await delivery.reply("the one answer")
            await delivery.ack()
            assert await second.line() == reply.id
        again = await ada.request("bob", "q", timeout=PATIENCE, idempotency_key="k")
        assert again.id == reply.id
        assert await bob.message_count() == 0


async def check_a_second_answer_is_ignored_and_logged(subject: Subject) -> None:
    """The first answer stays the request's result; a second one is no mail either, and a
    warning is logged."""
    logged: list[str] = []

    def listener(record: logging.LogRecord) -> bool:
        logged.append(record.getMessage())
        return True

    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        asking = asyncio.create_task(ada.request("bob", "q", timeout=PATIENCE))
        message = await bob.receive(timeout=PATIENCE)
        assert message is not None
        await bus.deliver(message.reply("first"))
        logging.getLogger("afk.messaging").addFilter(listener)
        try:
            await bus.deliver(message.reply("second"))
        finally:
            logging.getLogger("afk.messaging").removeFilter(listener)
        assert (await asking).content == "first"
        assert await ada.message_count() == 0
        assert any("second answer" in text for text in logged)


# -- when no answer comes ----------------------------------------------------------------


async def check_a_late_answer_stays_readable(subject: Subject) -> None:
    """An answer that came too late is read from the error's receipt, or by repeating the request
    with its key; it is not mail."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        with raises(RequestTimeoutError) as late:
            await ada.request("bob", "q", timeout=0.01, ttl=60, idempotency_key="k")
        assert isinstance(late.error, TimeoutError)
        delivery = await claimed(bob, PATIENCE)
        await delivery.reply("better late")
        await delivery.ack()
        assert (await late.error.receipt.result(timeout=PATIENCE)).content == "better late"
        again = await ada.request("bob", "q", timeout=PATIENCE, idempotency_key="k")
        assert again.content == "better late"
        assert await ada.message_count() == 0


async def check_a_late_answer_is_kept_for_retention(subject: Subject) -> None:
    """A result is readable for `retention` after the answer came, even when the bodies of
    finished messages are kept for less; then it is gone."""
    clock = FakeClock()
    async with subject.bus(clock, history=1, retention=100) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        with raises(RequestTimeoutError) as late:
            await ada.request("bob", "q", timeout=0.01, ttl=60)
        delivery = await claimed(bob, PATIENCE)
        await delivery.ack()
        clock.advance(50)
        await bus.deliver(delivery.message.reply("at last"))
        receipt = late.error.receipt
        clock.advance(99)
        assert (await receipt.result(timeout=PATIENCE)).content == "at last"
        clock.advance(2)
        with raises(RequestFailedError) as gone:
            await receipt.result(timeout=PATIENCE)
        assert gone.error.reason == "gone"


async def check_an_expired_request_that_was_answered_is_a_whole_dead_letter(
    subject: Subject,
) -> None:
    """An expired request whose late answer is still kept can be shown, redriven and discarded."""
    clock = FakeClock()
    async with subject.bus(clock, history=1, retention=100) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        with raises(RequestTimeoutError):
            await ada.request("bob", "q", timeout=0.01, ttl=10)
        [asked] = await bob.peek()
        clock.advance(20)
        assert await bob.message_count() == 0
        clock.advance(90)
        await bus.deliver(asked.reply("at last"))
        clock.advance(20)  # longer than the letter would have been kept for itself
        assert await bob.message_count() == 0
        [letter] = await bus.dead_letters("bob", reason="expired")
        assert letter.message is not None
        assert letter.message.content == "q"
        assert await bus.redrive(agent="bob") == 1
        assert (await claimed(bob, PATIENCE)).message.content == "q"
        clock.advance(200)
        await bob.message_count()
        assert await bus.discard(agent="bob") == 1


async def check_an_answer_that_cannot_be_read_is_told(subject: Subject) -> None:
    """An answer of another version of the wire format ends the request with `undecodable`."""
    store = subject.store()
    async with MessageBus(store) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        asking = asyncio.create_task(ada.request("bob", "q", timeout=PATIENCE))
        delivery = await claimed(bob, PATIENCE)
        asked = delivery.message.id
        answer = Send(
            body=b"from later",
            id="later",
            mailbox="ada",
            sender="bob",
            rank=2,
            awaited=True,
            answers=asked,
        )
        await store.put((Turn(sends=(answer,)),))
        with raises(RequestFailedError) as unreadable:
            await asking
        assert unreadable.error.reason == "undecodable"


async def check_an_answer_past_retention_is_no_mail(subject: Subject) -> None:
    """An answer to a request that is no longer known is ignored like a second one."""
    clock = FakeClock()
    async with subject.bus(clock, history=1, retention=1) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        with raises(RequestTimeoutError):
            await ada.request("bob", "q", timeout=0.01, ttl=60)
        delivery = await claimed(bob, PATIENCE)
        await delivery.ack()
        clock.advance(1000)
        await bob.send("bob", "something else")
        await bus.deliver(delivery.message.reply("far too late"))
        assert await ada.message_count() == 0


async def check_a_request_lives_as_long_as_its_timeout(subject: Subject) -> None:
    """A request's ttl is its timeout, unless another is given: what nobody takes in time is a
    dead letter."""
    clock = FakeClock()
    async with subject.bus(clock) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        with raises(RequestTimeoutError) as short:
            await ada.request("bob", "short", timeout=0.05)
        with raises(RequestTimeoutError):
            await ada.request("bob", "long", timeout=0.05, ttl=10)
        assert await bob.message_count() > 1
        clock.advance(1)
        assert await contents(bob) == ["long"]
        assert [letter.reason for letter in await bus.dead_letters("bob")] == ["expired"]
        assert await short.error.receipt.status() == "dead"


async def check_a_request_that_ends_without_an_answer_fails(subject: Subject) -> None:
    """A rejected, dead or cancelled request raises RequestFailedError with the reason, at once."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        asking = asyncio.create_task(ada.request("bob", "q", timeout=PATIENCE))
        await (await claimed(bob, PATIENCE)).reject("not my job")
        with raises(RequestFailedError, "not my job") as rejected:
            await asking
        assert rejected.error.reason == "rejected"
        asking = asyncio.create_task(ada.request("bob", "q", timeout=PATIENCE, delay=9))

        async def waits() -> bool:
            return bool(await bus.messages(agent="bob", state="scheduled"))

        await until(waits, "the request waits")
        [entry] = await bus.messages(agent="bob", state="scheduled")
        assert await bus.cancel(entry.id) == 1
        with raises(RequestFailedError) as cancelled:
            await asking
        assert cancelled.error.reason == "cancelled"


async def check_waiters_leak_nowhere(subject: Subject) -> None:
    """Requests that time out or are cancelled leave no task and nothing in the requester's
    mailbox."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await bob.claim(timeout=0.01)  # what the store needs for waiting is there from now on
        before = asyncio.all_tasks()
        waiting = [asyncio.create_task(ada.request("bob", n, timeout=9)) for n in range(8)]
        for n, task in enumerate(waiting):
            await asyncio.sleep(0)
            if n % 2:
                task.cancel()
        with raises(RequestTimeoutError):
            await ada.request("bob", "q", timeout=0.01)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

        async def gone() -> bool:
            return asyncio.all_tasks() <= before

        await until(gone, "no task is left")
        assert await ada.message_count() == 0


async def check_a_reply_to_an_answer_is_mail(subject: Subject) -> None:
    """An answer is no request: what is replied to it goes to its sender's mailbox."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        async with serving(bob, echo):
            answer = await ada.request("bob", "q", timeout=PATIENCE)
        await bus.deliver(answer.reply("thanks"))
        message = await bob.receive(timeout=PATIENCE)
        assert message is not None
        assert message.content == "thanks"


async def check_an_answer_is_a_message_of_its_own(subject: Subject) -> None:
    """An answer can be read and traced beside its request, and is done as soon as it is there."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        async with serving(bob, echo):
            answer = await ada.request("bob", "q", timeout=PATIENCE)
            request = str(answer.causation_id)
            assert await bus.status(answer.id) == "done"
            trace = await bus.trace(request)
        assert [entry.id for entry in trace] == [request, answer.id]
        again = replace(answer, metadata={"sent": "again"})
        assert (await bus.deliver(again)).duplicate
