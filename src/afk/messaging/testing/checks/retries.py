"""Promise 7: retries back off, then stop; dead letters stay until someone decides."""

from __future__ import annotations

import asyncio
from typing import Any

from ...bus import MessageBus
from ...delivery import Delivery, Reject, Retry
from ...errors import ConfigurationError, UnknownAgentError
from ...lifecycle import RetryPolicy
from ...messages import AgentMessage
from ...store import Send, Turn
from ...trace import DeadLetter
from ..clock import FakeClock
from ..expect import raises
from ..steps import AT_ONCE, PATIENCE, claimed, contents, serving, until
from ..subject import Subject

STEPS = RetryPolicy(max_attempts=4, base=10.0, factor=2.0, cap=30.0, jitter="none")
DAY = 86_400.0


async def check_retries_come_after_the_policys_delay(subject: Subject) -> None:
    """The next attempt after a nack or a lease's end comes after the policy's delay, growing up
    to its cap, and not before."""
    clock = FakeClock()
    async with subject.bus(clock, retry=STEPS) as bus:
        bob = await bus.register("bob")
        for fails in ("nack", "lease end"):
            await bob.send("bob", fails)
            for attempt, pause in enumerate((10, 20, 30), 1):
                delivery = await claimed(bob, lease=5)
                assert delivery.attempt == attempt
                if fails == "nack":
                    await delivery.nack("again")
                else:
                    clock.advance(5)
                clock.advance(pause - 1)
                assert await bob.claim(timeout=0) is None, (fails, attempt)
                clock.advance(2)
            await (await claimed(bob)).ack()


async def check_a_shortened_lease_keeps_its_delay(subject: Subject) -> None:
    """Cut short by `extend`, a lease is followed by the policy's delay all the same, though it
    would have outlived the message's ttl; past its ttl, nobody waits for the delay."""
    clock = FakeClock()
    async with subject.bus(clock, retry=STEPS) as bus:
        bob = await bus.register("bob")
        receipt = await bob.send("bob", "work", ttl=20)
        await (await claimed(bob, lease=500)).extend(1)
        clock.advance(2)
        assert await receipt.status() == "scheduled"
        assert await bob.claim(timeout=0) is None
        clock.advance(10)
        again = await claimed(bob, lease=5)
        assert again.attempt == 2
        clock.advance(6)
        assert await receipt.status() == "scheduled"
        clock.advance(3)
        assert await receipt.status() == "dead"
        assert [letter.reason for letter in await bus.dead_letters("bob")] == ["expired"]


async def check_a_nack_may_name_its_delay(subject: Subject) -> None:
    """`nack(delay=)` takes the place of the policy's delay; 0 is at once."""
    clock = FakeClock()
    async with subject.bus(clock, retry=STEPS) as bus:
        bob = await bus.register("bob")
        receipt = await bob.send("bob", "work")
        await (await claimed(bob)).nack(delay=100)
        assert await receipt.status() == "scheduled"
        clock.advance(99)
        assert await bob.claim(timeout=0) is None
        clock.advance(2)
        await (await claimed(bob)).nack(delay=0)
        assert await receipt.status() == "pending"
        assert (await claimed(bob)).attempt > 1


async def check_retries_spread(subject: Subject) -> None:
    """With full jitter the retries of messages that failed together are spread over the whole
    delay, whether they were nacked or their lease ended."""
    clock = FakeClock()
    policy = RetryPolicy(base=100.0, cap=100.0)
    async with subject.bus(clock, retry=policy) as bus:
        for name in ("nacked", "lost"):
            box = await bus.register(name)
            for n in range(40):
                await box.send(name, n)
            held = [await claimed(box, lease=1) for _ in range(40)]
            for delivery in held if name == "nacked" else ():
                await delivery.nack()
            clock.advance(1)
            clock.advance(50)
            early = await box.message_count()
            assert early in range(5, 36), f"{name}: {early} of 40 in the first half"
            clock.advance(50)
            assert await box.message_count() == len(held)


async def check_past_the_last_attempt_is_a_dead_letter(subject: Subject) -> None:
    """After `max_attempts` failures, by nack or by the lease's end, the message is a dead letter
    with reason, error, attempts and time, its content as it was sent."""
    clock = FakeClock()
    async with subject.bus(clock, retry=RetryPolicy(max_attempts=3, base=0.0)) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        sent = [await ada.send("bob", {"n": n}, metadata={"m": n}) for n in range(2)]
        for attempt in (1, 2, 3):
            nacked, lost = await claimed(bob, lease=10), await claimed(bob, lease=10)
            assert (nacked.attempt, lost.attempt) == (attempt, attempt)
            await nacked.nack(f"error {attempt}")
            clock.advance(11)
        letters = {letter.id: letter for letter in await bus.dead_letters("bob")}
        assert set(letters) == {receipt.id for receipt in sent}
        for receipt in sent:
            letter = letters[receipt.id]
            assert (letter.reason, letter.attempts, letter.agent) == ("exhausted", 3, "bob")
            assert letter.message == receipt.message
            assert clock.now - 12 <= letter.failed_at <= clock.now
            assert await receipt.status() == "dead"
        assert letters[sent[0].id].error == "error 3"
        assert letters[sent[1].id].error
        clock.advance(1000)
        assert await bob.claim(timeout=0) is None


async def check_the_claimers_policy_decides(subject: Subject) -> None:
    """How often and how soon is tried again is the claiming consumer's policy, of its bus or of
    its `serve`, also for a lease whose end another consumer finds."""
    clock = FakeClock()
    strict = subject.bus(clock, retry=RetryPolicy(max_attempts=1))
    lenient = subject.bus(clock, retry=STEPS)
    async with strict, lenient:
        mine, yours = await strict.register("bob"), await lenient.register("bob")
        nacked, lost = await yours.send("bob", "nacked"), await yours.send("bob", "lost")
        await (await claimed(mine)).nack("once is enough")
        await claimed(mine, lease=10)
        clock.advance(11)
        assert await yours.claim(timeout=0) is None
        assert [await nacked.status(), await lost.status()] == ["dead", "dead"]


async def check_a_rejected_message_is_not_tried_again(subject: Subject) -> None:
    """`reject` and `raise Reject` make a dead letter `rejected` with the error at once."""

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        raise Reject(f"bad {delivery.message.content}")

    async with subject.bus() as bus:
        bob = await bus.register("bob")
        first, second = await bob.send("bob", "one"), await bob.send("bob", "two")
        await (await claimed(bob, PATIENCE)).reject("bad one")
        async with serving(bob, handler):
            assert await second.settled(PATIENCE) == "dead"
        letters = await bus.dead_letters("bob", reason="rejected")
        assert [(x.id, x.error, x.attempts) for x in letters] == [
            (first.id, "bad one", 1),
            (second.id, "bad two", 1),
        ]


async def check_retry_does_what_it_says(subject: Subject) -> None:
    """`raise Retry(delay)` uses up an attempt and waits; `counts=False` gives the attempt back,
    as often as it is raised."""
    seen: list[int] = []

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        seen.append(delivery.attempt)
        raise Retry(0, counts=len(seen) not in range(9))

    async with subject.bus() as bus:
        bob = await bus.register("bob")
        receipt = await bob.send("bob", "work")
        async with serving(bob, handler, retry=RetryPolicy(max_attempts=3)):
            assert await receipt.settled(PATIENCE) == "dead"
    assert seen == [1] * 9 + [2, 3]


async def check_giving_back_costs_nothing(subject: Subject) -> None:
    """A delivery given back is at its place at once, with the attempt it was; also past what
    would have been its last."""
    async with subject.bus(retry=RetryPolicy(max_attempts=2, base=0.0)) as bus:
        bob = await bus.register("bob")
        for n in range(3):
            await bob.send("bob", n)
        for _ in range(5):
            first, second = await claimed(bob, PATIENCE), await claimed(bob, PATIENCE)
            assert (first.message.content, first.attempt) == (0, 1)
            await second.give_back()
            await first.give_back()
        await (await claimed(bob, PATIENCE)).nack()
        for _ in range(3):
            last = await claimed(bob, PATIENCE)
            assert (last.message.content, last.attempt) == (0, 2)
            await last.give_back()
        assert await contents(bob) == [0, 1, 2]


async def check_draining_gives_back(subject: Subject) -> None:
    """A cancelled `serve` lets running handlers finish for `grace` seconds and gives back the
    rest: at their place, with the attempt unused, and it claims no more."""
    started: list[Any] = []

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        started.append(delivery.message.content)
        await asyncio.sleep(0.1 if delivery.message.content == 0 else PATIENCE)

    async with subject.bus() as bus:
        bob = await bus.register("bob")
        receipts = [await bob.send("bob", n) for n in range(4)]
        async with serving(bob, handler, concurrency=2, grace=0.5):
            await until(lambda: len(started) == len([0, 1]), "two handlers run")
        assert started == [0, 1]
        assert await receipts[0].status() == "done"
        assert [message.content for message in await bob.peek()] == [1, 2, 3]
        assert (await claimed(bob)).attempt == 1


async def check_only_what_can_start_is_claimed(subject: Subject) -> None:
    """`serve` never holds more than it works on, so no message waits, leased, behind another."""
    running: list[Any] = []
    most = at_once = 0

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        nonlocal most, at_once
        running.append(delivery.message.content)
        at_once = max(at_once, len(running))
        most = max(most, (await bus.stats())["bob"].leased - len(running))
        await asyncio.sleep(0.005 * (1 + delivery.message.content % 3))  # they end one by one
        running.remove(delivery.message.content)
        if delivery.attempt == 1:
            raise ValueError("once")

    async with subject.bus(retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        receipts = [await bob.send("bob", n) for n in range(12)]
        async with serving(bob, handler, concurrency=3):
            for receipt in receipts:
                assert await receipt.settled(PATIENCE) == "done"
    assert at_once <= 3
    assert most in range(4)


# -- dead letters ------------------------------------------------------------------------


async def check_dead_letters_stay(subject: Subject) -> None:
    """Dead letters stay until they are discarded, expired ones for `retention`."""
    clock = FakeClock()
    async with subject.bus(clock, retention=DAY) as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "kept", ttl=10 * DAY)
        await (await claimed(bob)).reject("bad")
        await bob.send("bob", "gone", ttl=1)
        clock.advance(2)
        assert await bob.claim(timeout=0) is None
        assert [x.reason for x in await bus.dead_letters()] == ["rejected", "expired"]
        clock.advance(DAY / 2)
        assert len(await bus.dead_letters()) == len(["rejected", "expired"])
        clock.advance(100 * DAY)
        assert await bob.claim(timeout=0) is None
        assert [x.reason for x in await bus.dead_letters()] == ["rejected"]


async def check_what_time_causes_is_visible(subject: Subject) -> None:
    """A ttl, a delay or a lease that ran out shows when the mailbox is browsed or counted, and
    when it is found full: expired mail makes room."""
    clock = FakeClock()
    async with subject.bus(clock, retry=RetryPolicy(max_attempts=1)) as bus:
        bob = await bus.register("bob", capacity=4)
        late = await bob.send("bob", "late", delay=10)
        lost = await bob.send("bob", "lost")
        await claimed(bob, lease=10)
        short = await bob.send("bob", "short", ttl=10)
        clock.advance(11)
        assert await late.status() == "pending"
        assert await lost.status() == "dead"
        stats = (await bus.stats())["bob"]
        assert (stats.pending["all"], stats.scheduled, stats.leased, stats.dead) == (1, 0, 0, 2)
        assert [x.reason for x in await bus.dead_letters()] == ["exhausted", "expired"]
        assert await short.status() == "dead"
        for n in range(3):
            await bob.send("bob", n, ttl=5)
        clock.advance(6)
        await bob.send("bob", "room", priority="urgent")
        assert await contents(bob) == ["room", "late"]


async def check_what_expired_is_not_tried_again(subject: Subject) -> None:
    """A message whose ttl ran out while it was worked on may still be acked; if it comes back, by
    a nack, a give-back or its lease's end, it is a dead letter `expired`."""
    clock = FakeClock()
    async with subject.bus(clock, retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        sent = [await bob.send("bob", n, ttl=10) for n in range(4)]
        acked, nacked, returned, _ = [await claimed(bob, lease=20) for _ in sent]
        clock.advance(11)
        await acked.ack()
        await nacked.nack()
        await returned.give_back()
        clock.advance(10)
        assert await bob.claim(timeout=0) is None
        assert [await receipt.status() for receipt in sent] == ["done", "dead", "dead", "dead"]
        letters = await bus.dead_letters(reason="expired")
        assert [letter.id for letter in letters] == [receipt.id for receipt in sent[1:]]


async def check_the_undecodable_is_buried_at_first_sight(subject: Subject) -> None:
    """A record that cannot be read, or whose content is not of the registered type, becomes a
    dead letter `undecodable` when it is met, raw, and the mailbox goes on."""
    store = subject.store()
    async with MessageBus(store) as bus:
        bob = await bus.register("bob")
        broken = Send(body=b"{broken", id="b" * 32, mailbox="bob", sender="ada")
        [verdict] = await store.put((Turn(sends=(broken,)),))
        assert verdict.refusal is None
        await bob.send("bob", "good")
        message = await bob.receive(timeout=PATIENCE)
        assert message is not None
        assert message.content == "good"
        typed = await bus.register("typed", type=int)
        await bob.send("typed", "no number")
        await bob.send("typed", 7)
        assert (await claimed(typed, PATIENCE)).message.content == int("7")
        raw, wrong = await bus.dead_letters(reason="undecodable")
        assert (raw.message, raw.raw, raw.id) == (None, b"{broken", "b" * 32)
        assert wrong.message is not None
        assert wrong.message.content == "no number"


async def check_redrive_begins_anew(subject: Subject) -> None:
    """`redrive` makes dead letters pending again, last in line, with attempts and ttl anew; they
    keep their id, key and content, and the count of redrives. No token comes again."""
    clock = FakeClock()
    tokens: set[str] = set()
    async with subject.bus(clock, retry=RetryPolicy(max_attempts=2, base=0.0)) as bus:
        bob = await bus.register("bob")
        receipt = await bob.send("bob", "work", ttl=100, idempotency_key="k")
        for redrives in range(3):
            for attempt in (1, 2):
                delivery = await claimed(bob)
                assert (delivery.attempt, delivery.message.id) == (attempt, receipt.id)
                assert delivery.token not in tokens
                tokens.add(delivery.token)
                await delivery.nack()
            [letter] = await bus.dead_letters("bob")
            assert letter.redrives == redrives
            clock.advance(99)
            await bob.send("bob", "newer")
            assert await bus.redrive(letter.id) == 1
            assert await bus.redrive(letter.id) == 0
            assert await receipt.status() == "pending"
            await (await claimed(bob)).ack()
        again = await bob.send("bob", "work", idempotency_key="k")
        assert (again.duplicate, again.id) == (True, receipt.id)
        clock.advance(101)
        assert await bob.claim(timeout=0) is None
        assert [x.reason for x in await bus.dead_letters()] == ["expired"]


async def check_redrive_and_discard_choose(subject: Subject) -> None:
    """Both take ids, or all dead letters of an agent, say how many there were, and refuse to
    guess; what is not dead stays as it is."""
    async with subject.bus() as bus:
        bob, eve = await bus.register("bob"), await bus.register("eve")
        for box in (bob, bob, bob, eve):
            await box.send(box.name, "x")
            await (await claimed(box, PATIENCE)).reject("bad")
        alive = await bob.send("bob", "alive")
        one, two, three = [x.id for x in await bus.dead_letters("bob")]
        for verb in (bus.redrive, bus.discard):
            with raises(ValueError):
                await verb()
            with raises(ConfigurationError):
                await verb()
            assert await verb(alive.id, "unknown") == 0
        assert await bus.discard(one, agent="eve") == 0
        assert await bus.discard(one) == 1
        assert await bus.status(one) in ("cancelled", None)
        assert await bus.redrive(one) == 0
        assert await bus.redrive(agent="bob") == len((two, three))
        assert await bus.discard(agent="bob") == 0
        assert await bus.discard(agent="eve") == 1
        assert await bus.dead_letters() == []
        assert [m.id for m in await bob.peek()] == [alive.id, two, three]


async def check_unregistered_mail_dies(subject: Subject) -> None:
    """`unregister` refuses new sends and makes what waits dead letters `unregistered`; they stay
    dead while nobody has the name, and can be redriven to who registers it again."""
    async with subject.bus(retry=AT_ONCE) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", "held")
        held = await claimed(bob, PATIENCE)
        await ada.send("bob", "waits")
        await ada.send("bob", "scheduled", delay=60)
        await bus.unregister("bob")
        with raises(UnknownAgentError):
            await ada.send("bob", "new")
        assert "bob" not in await bus.agents()
        letters = await bus.dead_letters(reason="unregistered")
        found = [x.message.content for x in letters if x.message]
        assert sorted(found) == ["scheduled", "waits"]
        assert await bus.redrive(*[x.id for x in letters]) == 0
        await held.ack()
        again = await bus.register("bob")
        assert await bus.redrive(agent="bob") == len(letters)
        assert await contents(again) == found


async def check_the_living_are_told_of_the_dead(subject: Subject) -> None:
    """`on_dead_letter` calls back, sync or async, for what a call of this bus made dead;
    `aclose()` waits for it, and a callback that fails hurts nobody."""
    told: list[DeadLetter] = []

    async def slowly(letter: DeadLetter) -> None:
        await asyncio.sleep(0.05)
        told.append(letter)

    def badly(letter: DeadLetter) -> None:
        raise RuntimeError(f"no time for {letter.id}")

    bus = subject.bus()
    bus.on_dead_letter(badly)
    bus.on_dead_letter(told.append)
    bus.on_dead_letter(slowly)
    bob = await bus.register("bob")
    await bob.send("bob", "one")
    await (await claimed(bob, PATIENCE)).reject("bad")
    await bob.send("bob", "two")
    await bus.unregister("bob")
    await bus.aclose()
    assert sorted((x.reason, x.agent) for x in told) == [
        ("rejected", "bob"),
        ("rejected", "bob"),
        ("unregistered", "bob"),
        ("unregistered", "bob"),
    ]


async def check_dead_letters_can_be_followed(subject: Subject) -> None:
    """`dead_letters(after=cursor)` goes on where the last look ended and misses none, in the
    order they died; `agent` and `reason` narrow it."""
    async with subject.bus() as bus:
        bob, eve = await bus.register("bob"), await bus.register("eve")
        followed: list[str] = []
        cursor = None
        for turn in range(4):
            died = []
            for box in (bob, eve, bob):
                await box.send(box.name, turn)
                delivery = await claimed(box, PATIENCE)
                await delivery.reject(turn)
                died.append(delivery.message.id)
            while page := await bus.dead_letters(after=cursor, limit=2):
                followed += [letter.id for letter in page]
                cursor = page[-1].cursor
            assert followed[-3:] == died
        assert len(set(followed)) == len(followed)
        mine = await bus.dead_letters("eve", reason="rejected")
        assert [letter.error for letter in mine] == ["0", "1", "2", "3"]
        assert await bus.dead_letters("eve", reason="expired") == []
        with raises(ConfigurationError):
            await bus.dead_letters(after="nonsense")
