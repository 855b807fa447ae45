"""Promises 3 and 4: at least once under a lease, and receive() as claim and ack."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from itertools import product
from unittest.mock import patch

from ...bus import MessageBus
from ...delivery import Delivery
from ...errors import LeaseLostError
from ...lifecycle import RetryPolicy
from ...messages import AgentMessage
from ..clock import FakeClock
from ..expect import raises
from ..processes import run, say
from ..steps import AT_ONCE, PATIENCE, claimed, contents, serving, until
from ..subject import Subject


async def check_a_delivery_belongs_to_one_consumer(subject: Subject) -> None:
    """Until its lease ends no other consumer gets a claimed message; then it comes again, as
    the next attempt."""
    clock = FakeClock()
    async with subject.bus(clock, retry=AT_ONCE) as one, subject.bus(clock) as two:
        mine, yours = await one.register("bob"), await two.register("bob")
        await mine.send("bob", "work")
        first = await claimed(mine, lease=30)
        assert first.attempt == 1
        clock.advance(29)
        assert await yours.claim(timeout=0) is None
        assert await mine.claim(timeout=0) is None
        clock.advance(2)
        again = await claimed(yours)
        assert (again.attempt, again.message.id) == (2, first.message.id)
        assert again.token != first.token


async def check_a_lease_is_the_claimers_own(subject: Subject) -> None:
    """How long a lease lasts is said by the call, else by the claiming consumer's bus, not by
    the bus that sent or created."""
    clock = FakeClock()
    patient = subject.bus(clock, lease=100.0, retry=AT_ONCE)
    hasty = subject.bus(clock, lease=10.0, retry=AT_ONCE)
    async with patient, hasty:
        mine, yours = await patient.register("bob"), await hasty.register("bob")
        for content in ("own", "told", "other"):
            await mine.send("bob", content)
        await claimed(yours)
        await claimed(yours, lease=50.0)
        await claimed(mine)
        clock.advance(11)
        assert [message.content for message in await mine.peek()] == ["own"]
        clock.advance(40)
        assert [message.content for message in await mine.peek()] == ["own", "told"]
        clock.advance(50)
        assert [message.content for message in await mine.peek()] == ["own", "told", "other"]


async def check_the_stores_clock_judges_leases(subject: Subject) -> None:
    """While the store's clock stands still no lease ends, however long this process waits."""
    clock = FakeClock()
    async with subject.bus(clock) as bus:
        bob = await bus.register("bob")
        receipt = await bob.send("bob", "work")
        delivery = await claimed(bob, lease=0.02)
        await asyncio.sleep(0.1)
        assert await bob.claim(timeout=0) is None
        await delivery.ack()
        assert await receipt.status() == "done"


async def claim_an_hour_ahead(bus: MessageBus) -> None:
    """Claim in a process whose own clock is wrong."""
    right = time.time
    with patch.object(time, "time", lambda: right() + 3600):
        delivery = await (await bus.register("bob")).claim(timeout=0)
        say(None if delivery is None else delivery.message.content)


async def check_a_wrong_clock_ends_no_lease(subject: Subject) -> None:
    """A process whose own clock is an hour fast takes nothing that another holds."""
    if subject.url is None:
        return
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "work")
        delivery = await claimed(bob, lease=PATIENCE)
        async with run(subject, claim_an_hour_ahead) as process:
            assert await process.line() is None
        await delivery.ack()


async def check_extend_moves_the_end_of_a_lease(subject: Subject) -> None:
    """After `extend(seconds)` the lease ends so many seconds from then, and not before."""
    clock = FakeClock()
    async with subject.bus(clock, retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "work")
        delivery = await claimed(bob, lease=10)
        for _ in range(3):
            clock.advance(8)
            await delivery.extend(10)
        clock.advance(8)
        assert await bob.claim(timeout=0) is None
        clock.advance(4)
        again = await claimed(bob)
        assert (again.attempt, again.message.content) == (2, "work")
        with raises(LeaseLostError):
            await delivery.extend(10)


async def check_a_lost_lease_does_not_cost_another(subject: Subject) -> None:
    """Who lost a lease and who has the message now can ack in one moment: the second one's holds,
    and so do those of other messages."""
    clock = FakeClock()
    async with subject.bus(clock, retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        for late in (0, 1):
            for content in ("lost", "other"):
                await bob.send("bob", content)
            lost = await claimed(bob, lease=1)
            other = await claimed(bob, lease=60)
            clock.advance(2)
            again = await claimed(bob, lease=60)
            assert again.message == lost.message
            calls = [other.ack(), again.ack()]
            calls.insert(late * 2, lost.ack())
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(results.pop(late * 2), LeaseLostError)
            assert results == [None, None]


async def check_a_bare_claim_is_not_renewed(subject: Subject) -> None:
    """A claimed message whose consumer does nothing about it comes again when its lease ends,
    also to a consumer that is already waiting."""
    async with subject.bus(retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "work")
        await claimed(bob, PATIENCE, lease=0.2)
        again = await claimed(bob, PATIENCE)
        assert (again.attempt, again.message.content) == (2, "work")
        await again.ack()


async def check_a_lease_is_renewed_in_a_with_block(subject: Subject) -> None:
    """`async with delivery` renews the lease meanwhile; acks on success and nacks, with the
    exception as error, on failure."""
    async with subject.bus(retry=RetryPolicy(max_attempts=1)) as bus:
        bob = await bus.register("bob")
        good, bad = await bob.send("bob", "good"), await bob.send("bob", "bad")
        delivery = await claimed(bob, PATIENCE, lease=0.6)
        async with delivery:
            other = await claimed(bob, PATIENCE)
            assert await bob.claim(timeout=1.5) is None
        assert await good.status() == "done"
        with raises(ZeroDivisionError):
            async with other:
                raise ZeroDivisionError("by hand")
        assert await bad.status() == "dead"
        [letter] = await bus.dead_letters("bob")
        assert "ZeroDivisionError: by hand" in letter.error


async def check_a_lease_is_renewed_while_the_handler_runs(subject: Subject) -> None:
    """`serve` keeps a message through many leases while its handler runs."""
    seen: list[int] = []

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        seen.append(delivery.attempt)
        await asyncio.sleep(1.8)

    async with subject.bus(retry=AT_ONCE) as bus, subject.bus() as other:
        bob, rival = await bus.register("bob"), await other.register("bob")
        receipt = await bob.send("bob", "work")
        async with serving(bob, handler, lease=0.6):
            await until(lambda: bool(seen), "the handler started")
            assert await rival.claim(timeout=1.5) is None
            assert await receipt.settled(PATIENCE) == "done"
    assert seen == [1]


async def check_a_blocked_loop_keeps_its_leases(subject: Subject) -> None:
    """Where `renews_when_blocked` is claimed, a handler that blocks its event loop for several
    leases still settles its first attempt."""
    if not subject.capabilities.renews_when_blocked:
        return
    seen: list[int] = []

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        seen.append(delivery.attempt)
        time.sleep(1.8)  # noqa: ASYNC251 - it is the point

    async with subject.bus(retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        receipt = await bob.send("bob", "work")
        async with serving(bob, handler, lease=0.6):
            assert await receipt.settled(PATIENCE) == "done"
    assert seen == [1]


async def check_a_handler_past_its_timeout_is_cancelled(subject: Subject) -> None:
    """After `serve(timeout=)` seconds the handler is cancelled and the attempt has failed."""
    seen: list[str] = []

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            seen.append(f"cancelled {delivery.attempt}")
            raise

    async with subject.bus(retry=RetryPolicy(max_attempts=2, base=0.0)) as bus:
        bob = await bus.register("bob")
        receipt = await bob.send("bob", "work")
        async with serving(bob, handler, timeout=0.1):
            assert await receipt.settled(PATIENCE) == "dead"
        [letter] = await bus.dead_letters("bob")
    assert seen == ["cancelled 1", "cancelled 2"]
    assert (letter.reason, letter.attempts) == ("exhausted", 2)
    assert "Timeout" in letter.error


async def check_a_second_settle_is_refused(subject: Subject) -> None:
    """Whoever settles a delivery a second time, by the same or another object, gets
    LeaseLostError, and what the first one did stays."""
    async with subject.bus(FakeClock()) as bus:
        bob = await bus.register("bob")
        ends = {"ack": "done", "nack": "scheduled", "reject": "dead"}
        for first, state in ends.items():
            receipt = await bob.send("bob", first)
            delivery = await claimed(bob)
            twin = await bob.resume(delivery.token)
            await twin.send("bob", "never")
            await getattr(delivery, first)(*() if first == "ack" else ("first",))
            for held in (delivery, twin):
                for verb in ("ack", "nack", "reject"):
                    with raises(LeaseLostError):
                        await getattr(held, verb)()
                with raises(LeaseLostError):
                    await held.extend(60)
            assert await receipt.status() == state
        assert await contents(bob) == []


async def check_a_stale_settle_changes_nothing(subject: Subject) -> None:
    """Once another consumer has claimed a message, its former holder can neither settle nor
    extend it nor send with it; the new holder notices nothing."""
    clock = FakeClock()
    often = RetryPolicy(max_attempts=20, base=0.0, jitter="none")
    async with subject.bus(clock, retry=often) as bus, subject.bus(clock, retry=often) as other:
        bob, rival = await bus.register("bob"), await other.register("bob")
        receipt = await bob.send("bob", "work")
        for verb, sends in product(("ack", "nack", "reject", "extend"), (True, False)):
            old = await claimed(bob, lease=10)
            if sends:
                await old.send("bob", "never")
            clock.advance(11)
            new = await claimed(rival, lease=10)
            with raises(LeaseLostError):
                await getattr(old, verb)(*(60,) if verb == "extend" else ())
            assert await receipt.status() == "leased"
            clock.advance(9)
            assert await bob.claim(timeout=0) is None
            await new.retry(0, counts=False)
        assert await contents(bob) == ["work"]


async def check_a_late_settle_succeeds_while_unclaimed(subject: Subject) -> None:
    """After the lease ended, its last holder can still settle while no one has claimed the
    message since: also reject, nack and extend."""
    clock = FakeClock()
    async with subject.bus(clock, retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        ends = {"ack": "done", "reject": "dead", "nack": "pending", "extend": "leased"}
        for verb, state in ends.items():
            receipt = await bob.send("bob", verb)
            delivery = await claimed(bob, lease=10)
            clock.advance(100)
            assert await receipt.status() == "pending"
            await getattr(delivery, verb)(*(60,) if verb == "extend" else ())
            assert await receipt.status() == state, verb
            await bus.cancel(receipt.id)


async def check_resume_settles_what_another_claimed(subject: Subject) -> None:
    """A token is enough to settle, anywhere: with its attempt, and with what is sent in the
    same step."""
    async with subject.bus() as one, subject.bus() as two:
        mine, yours = await one.register("bob"), await two.register("bob")
        receipt = await mine.send("bob", "work")
        token = (await claimed(mine, PATIENCE)).token
        delivery = await yours.resume(token)
        assert (delivery.message.content, delivery.attempt) == ("work", 1)
        assert delivery.token == token
        await delivery.send("bob", "next")
        await delivery.ack()
        assert await receipt.status() == "done"
        assert await contents(mine) == ["next"]


async def check_resume_refuses_what_is_not_held(subject: Subject) -> None:
    """No token, one of another mailbox, of an older lease or of a settled delivery: each is a
    LeaseLostError."""
    clock = FakeClock()
    async with subject.bus(clock, retry=AT_ONCE) as bus:
        bob, eve = await bus.register("bob"), await bus.register("eve")
        await bob.send("bob", "work")
        stale = (await claimed(bob, lease=10)).token
        clock.advance(11)
        delivery = await claimed(bob, lease=10)
        for mailbox, token in ((bob, stale), (eve, delivery.token), (bob, "x"), (bob, "x.1")):
            with raises(LeaseLostError):
                await mailbox.resume(token)
        await delivery.ack()
        with raises(LeaseLostError):
            await bob.resume(delivery.token)


async def check_deliveries_settles_nothing_by_itself(subject: Subject) -> None:
    """`deliveries()` gives each next message under a lease and settles none; leaving it gives
    back what was not started, at its place and with its attempt."""
    clock = FakeClock()
    async with subject.bus(clock, retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        receipts = [await bob.send("bob", n) for n in range(4)]
        async with asyncio.timeout(PATIENCE), aclosing(bob.deliveries(lease=10)) as deliveries:
            async for delivery in deliveries:
                if delivery.message.content == 1:
                    break
        assert [await receipt.status() for receipt in receipts[:2]] == ["leased", "leased"]
        assert [message.content for message in await bob.peek()] == [2, 3]
        clock.advance(11)
        again = [await claimed(bob) for _ in range(4)]
        assert [(d.message.content, d.attempt) for d in again] == [(0, 2), (1, 2), (2, 1), (3, 1)]


async def check_received_is_acked(subject: Subject) -> None:
    """`receive()` acks once the message is in the caller's hands, before any later call of this
    bus takes effect."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        receipts = [await bob.send("bob", n) for n in range(5)]
        for n, receipt in enumerate(receipts):
            message = await bob.receive(timeout=PATIENCE)
            assert message is not None
            assert message.content == n
            assert await receipt.status() == "done"
        for n in range(100):
            await bob.send("bob", n)
        assert await contents(bob) == list(range(100))
        stats = (await bus.stats())["bob"]
        assert (stats.leased, stats.pending["all"]) == (0, 0)


async def check_aclose_flushes_acks(subject: Subject) -> None:
    """What was received is acked by the time `aclose()` returns."""
    async with subject.bus() as watcher:
        bob = await watcher.register("bob")
        receipts = [await bob.send("bob", n) for n in range(3)]
        bus = subject.bus()
        mailbox = await bus.register("bob")
        for _ in receipts:
            assert await mailbox.receive(timeout=PATIENCE) is not None
        await bus.aclose()
        assert [await receipt.status() for receipt in receipts] == ["done"] * 3
        assert await bob.claim(timeout=0) is None


async def check_waiting_for_mail_ends_in_time(subject: Subject) -> None:
    """A claim or receive without mail ends with None after its timeout, and a waiting one gets
    what another bus sends meanwhile."""
    async with subject.bus() as one, subject.bus() as two:
        ada, bob = await one.register("ada"), await two.register("bob")
        async with asyncio.timeout(PATIENCE):
            assert await bob.receive(timeout=0.1) is None
            assert await bob.claim(timeout=0.1) is None
        waiting = asyncio.create_task(bob.receive(timeout=PATIENCE))
        await asyncio.sleep(0.05)
        await ada.send("bob", "now")
        message = await waiting
        assert message is not None
        assert message.content == "now"


async def check_a_closed_bus_leaves_others_waiting(subject: Subject) -> None:
    """Closing one bus does not put another to sleep: what becomes due still wakes its consumer."""
    async with subject.bus() as bus:
        other = subject.bus()
        bob, _ = await bus.register("bob"), await other.register("bob")
        await bob.send("bob", "late", delay=0.2)
        waiting = asyncio.create_task(bob.receive(timeout=PATIENCE))
        await asyncio.sleep(0.05)
        await other.aclose()
        async with asyncio.timeout(PATIENCE / 2):
            message = await waiting
        assert message is not None
        assert message.content == "late"
