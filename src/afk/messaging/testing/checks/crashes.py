"""Promises 1, 3 to 7 when processes die: at every step, and at any moment.

Asked only of a place that other processes can reach. Named in `docs/contract.md`: S, a sender;
C, a consumer; D, dead-lettering.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from functools import partial
from typing import Any

from ...bus import MessageBus
from ...connect import connect
from ...delivery import Delivery
from ...errors import LeaseLostError
from ...lifecycle import RetryPolicy
from ...messages import AgentMessage
from ..processes import Process, hear, run, say
from ..steps import AT_ONCE, PATIENCE, Effects, claimed, contents, serving, until
from ..subject import Subject

LEASE = 0.6
STUBBORN = RetryPolicy(max_attempts=1000, base=0.0)
ROUNDS = 4


def die() -> None:
    """End this process as kill -9 would, on every system."""
    os._exit(9)


async def _killed_soon(process: Process, most: float = 0.1) -> None:
    """Once it says it has begun, let it work for a random while, then kill it."""
    await process.line()
    await asyncio.sleep(random.random() * most)
    process.kill()
    await process.wait()


async def _said(process: Process) -> list[Any]:
    """Everything a process said before it ended."""
    said = []
    while True:
        try:
            said.append(await process.line())
        except AssertionError:
            return said


# -- senders -----------------------------------------------------------------------------


async def die_before_sending(bus: MessageBus) -> None:
    """S1."""
    await bus.register("ada")
    die()


async def send_many(bus: MessageBus, start: int) -> None:
    """Send number after number, and say each once it is accepted."""
    ada = await bus.register("ada")
    say("begun")
    for n in range(start, start + 100_000):
        await ada.send("bob", n, idempotency_key=str(n))
        say(n)


async def check_a_sender_killed_before_it_sends_leaves_nothing(subject: Subject) -> None:
    """What was never sent is not there (S1), and its key is free."""
    if subject.url is None:
        return
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        async with run(subject, die_before_sending) as process:
            assert await process.wait() != 0
        assert await bob.message_count() == 0
        assert await bus.agents() == ["ada", "bob"]


async def check_a_sender_killed_at_any_moment_loses_nothing(subject: Subject) -> None:
    """Whenever a sender is killed (S2, S3): what it was told is accepted is there, once; what it
    was not told about, sent again with its key, is there once too."""
    if subject.url is None:
        return
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for start in range(0, ROUNDS * 1_000_000, 1_000_000):
            async with run(subject, send_many, start) as process:
                await _killed_soon(process)
                accepted = await _said(process)
            unknown = start + len(accepted)
            await ada.send("bob", unknown, idempotency_key=str(unknown))
            assert await contents(bob) == [*accepted, unknown]


# -- consumers ---------------------------------------------------------------------------


async def claim_and_die(bus: MessageBus) -> None:
    """C1: claimed, and gone."""
    delivery = await claimed(await bus.register("bob"), PATIENCE, lease=LEASE)
    await delivery.reply("never")
    die()


async def begin_and_hang(bus: MessageBus) -> None:
    """C2: hang in the handler, its lease renewed."""

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        await delivery.reply("never")
        say(delivery.attempt)
        await asyncio.sleep(PATIENCE)

    await (await bus.register("bob")).serve(handler, lease=LEASE, retry=AT_ONCE)


async def ack_and_die(bus: MessageBus) -> None:
    """C5: acked, and gone before anything else."""
    delivery = await claimed(await bus.register("bob"), PATIENCE, lease=LEASE)
    await delivery.reply("answer")
    await delivery.ack()
    die()


async def check_a_killed_consumer_gives_its_message_back(subject: Subject) -> None:
    """Killed with a claimed message (C1), or in its handler (C2): the message comes again when
    the lease ends, as the next attempt, and nothing of the dead turn was sent."""
    if subject.url is None:
        return
    async with subject.bus(retry=AT_ONCE) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", "work")
        async with run(subject, claim_and_die) as process:
            await process.wait()
        async with run(subject, begin_and_hang) as process:
            assert await process.line() == 2
            assert await bob.claim(timeout=LEASE * 2) is None, "its lease was not renewed"
            process.kill()
            await process.wait()
            again = await claimed(bob, PATIENCE)
        assert (again.attempt, again.message.content) == (3, "work")
        assert await contents(ada) == []
        await again.ack()


async def check_an_ack_survives_its_process(subject: Subject) -> None:
    """Killed right after `ack` returned (C5): the message is done and stays so, and what left
    with it is there."""
    if subject.url is None:
        return
    async with subject.bus(retry=AT_ONCE) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        receipt = await ada.send("bob", "work")
        async with run(subject, ack_and_die) as process:
            await process.wait()
        assert await receipt.status() == "done"
        assert await bob.claim(timeout=LEASE * 2) is None
        assert await contents(ada) == ["answer"]


async def receive_and_say(bus: MessageBus, url: str) -> None:
    """Receive for ever, and say what came into these hands."""
    async with connect(url, lease=LEASE) as quick:
        bob = await quick.register("bob")
        say("begun")
        while True:
            message = await bob.receive()
            say(message and message.content)


async def check_receive_loses_nothing_in_a_crash(subject: Subject) -> None:
    """Killed at any moment of a loop of `receive()`: every message came into its hands or comes
    again; none is lost."""
    if subject.url is None:
        return
    async with subject.bus(retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        for _ in range(ROUNDS):
            sent = {(await bob.send("bob", n)).message.content for n in range(60)}
            async with run(subject, receive_and_say, subject.url) as process:
                await _killed_soon(process, 0.03)
                seen = set(await _said(process))
            while await _open(bus, "bob"):
                message = await bob.receive(timeout=LEASE)
                seen |= set() if message is None else {message.content}
            assert seen == sent


async def _open(bus: MessageBus, name: str) -> int:
    """How many messages are still to be worked on."""
    stats = (await bus.stats())[name]
    return stats.pending["all"] + stats.leased + stats.scheduled


# -- turns -------------------------------------------------------------------------------


async def relay(bus: MessageBus, name: str, onward: str) -> None:
    """Pass every message on, in its turn."""

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        await delivery.send(onward, delivery.message.content)
        await asyncio.sleep(0.002)

    mailbox = await bus.register(name)
    say("begun")
    await mailbox.serve(handler, concurrency=4, lease=LEASE, retry=STUBBORN)


async def check_a_chain_acts_once(subject: Subject) -> None:
    """However often the agents of a chain are killed, its end gets each message exactly once."""
    if subject.url is None:
        return
    async with subject.bus() as bus:
        first, end = await bus.register("a"), await bus.register("c")
        await bus.register("b")
        for n in range(60):
            await first.send("a", n)
        for _ in range(ROUNDS):
            async with run(subject, relay, "a", "b") as one, run(subject, relay, "b", "c") as two:
                await asyncio.gather(_killed_soon(one), _killed_soon(two))
        async with run(subject, relay, "a", "b"), run(subject, relay, "b", "c"):
            for name in ("a", "b"):
                await until(partial(_is_empty, bus, name), f"{name} is worked off")
        assert sorted(await contents(end)) == list(range(60))
        assert await bus.dead_letters() == []


async def _is_empty(bus: MessageBus, name: str) -> bool:
    return not await _open(bus, name)


async def ask_and_die(bus: MessageBus, dies: bool) -> None:
    """Make a sub-request and say its answer; then die before the ack, or ack."""
    delivery = await claimed(await bus.register("bob"), PATIENCE, lease=LEASE)
    answer = await delivery.request("oracle", f"attempt {delivery.attempt}", timeout=PATIENCE)
    say(answer.content)
    if dies:
        die()
    await delivery.ack()


async def check_a_repeated_turn_gets_the_first_answer(subject: Subject) -> None:
    """A process killed after its sub-request was answered: who repeats the turn gets the same
    answer, and the other agent was asked once."""
    if subject.url is None:
        return
    asked: list[Any] = []

    async def know(delivery: Delivery[AgentMessage]) -> int:
        asked.append(delivery.message.content)
        return len(asked)

    async with subject.bus() as bus:
        ada, oracle = await bus.register("ada"), await bus.register("oracle")
        await bus.register("bob")
        receipt = await ada.send("bob", "work")
        async with serving(oracle, know):
            for dies in (True, False):
                async with run(subject, ask_and_die, dies) as process:
                    assert await process.line() == 1
                    await process.wait()
        assert asked == ["attempt 1"]
        assert await receipt.status() == "done"


async def affect(bus: MessageBus, table: str, dies: str) -> None:
    """Handle messages with an effect each in the store's own transaction."""

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        async with delivery.transaction() as conn:
            await Effects(table).add(conn, delivery.message.content)
            await delivery.send("c", delivery.message.content)
            if dies == "inside":
                die()
        if dies == "behind":
            die()

    mailbox = await bus.register("b")
    say("begun")
    await mailbox.serve(handler, lease=LEASE, retry=STUBBORN)


async def check_effects_happen_once(subject: Subject) -> None:
    """Killed inside the transaction, right behind it, or at any moment: one effect and one send
    for each message (C3; where `transactions` is claimed)."""
    if subject.url is None or not subject.capabilities.transactions:
        return
    effects = Effects()
    async with subject.bus() as bus:
        start, end = await bus.register("b"), await bus.register("c")
        await start.send("b", -1)
        async with (await claimed(start, PATIENCE)).transaction() as conn:
            await effects.create(conn)
        for n in range(40):
            await start.send("b", n)
        for dies in ("inside", "behind"):
            async with run(subject, affect, effects.name, dies) as process:
                await process.wait()
        for _ in range(ROUNDS):
            async with run(subject, affect, effects.name, "") as process:
                await _killed_soon(process)
        async with run(subject, affect, effects.name, ""):
            await until(partial(_is_empty, bus, "b"), "all is worked off")
        assert sorted(await contents(end)) == list(range(40))
        await start.send("b", "look")
        async with (await claimed(start, PATIENCE)).transaction() as conn:
            assert sorted(map(int, await effects.all(conn))) == list(range(40))


# -- poison, blocked loops, frozen processes ---------------------------------------------


async def serve_poison(bus: MessageBus, blocks: float) -> None:
    """Serve with a handler that blocks its event loop for so long, or kills its process."""

    async def handler(delivery: Delivery[AgentMessage]) -> None:
        say(delivery.attempt)
        if not blocks:
            die()
        time.sleep(blocks)  # noqa: ASYNC251 - it is the point

    policy = RetryPolicy(max_attempts=3, base=0.0)
    await (await bus.register("bob")).serve(handler, lease=LEASE, retry=policy)


async def check_a_handler_that_kills_its_process_ends(subject: Subject) -> None:
    """Attempts are counted when claimed, so a message whose handler kills the process is a dead
    letter `exhausted` after `max_attempts`, and the next message's turn comes."""
    if subject.url is None:
        return
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "poison")
        for attempt in (1, 2, 3):
            async with run(subject, serve_poison, 0) as process:
                assert await process.line() == attempt
                assert await process.wait() != 0
        await bob.send("bob", "healthy", delay=LEASE)
        assert (await claimed(bob, PATIENCE)).message.content == "healthy"
        [letter] = await bus.dead_letters("bob")
        assert (letter.reason, letter.attempts) == ("exhausted", 3)
        assert letter.error


async def check_a_blocked_process_keeps_its_message(subject: Subject) -> None:
    """Where `renews_when_blocked` is claimed: a handler that blocks its process's event loop for
    three leases keeps its message from the consumers of other processes."""
    if subject.url is None or not subject.capabilities.renews_when_blocked:
        return
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        receipt = await bob.send("bob", "work")
        async with run(subject, serve_poison, LEASE * 3) as process:
            assert await process.line() == 1
            assert await bob.claim(timeout=LEASE * 2.5) is None
            assert await receipt.settled(PATIENCE) == "done"


async def hold_and_settle(bus: MessageBus) -> None:
    """Hold a message through a freeze, then try to settle it."""
    delivery = await claimed(await bus.register("bob"), PATIENCE, lease=LEASE * 2)
    await delivery.hold(PATIENCE)
    await delivery.reply("of the frozen")
    say("held")
    hear()
    for verb in (delivery.ack, delivery.nack, delivery.reject):
        try:
            await verb()
        except LeaseLostError:
            say("lost")
        else:
            say("settled")


async def check_a_frozen_holder_is_fenced(subject: Subject) -> None:
    """A frozen process loses its lease, renewed or not, and another finishes the work; thawed, it
    can settle nothing and send nothing."""
    if subject.url is None or not hasattr(signal, "SIGSTOP"):
        return
    async with subject.bus(retry=AT_ONCE) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        receipt = await ada.send("bob", "work")
        async with run(subject, hold_and_settle) as process:
            assert await process.line() == "held"
            process.signal(signal.SIGSTOP)
            other = await claimed(bob, PATIENCE)
            assert other.attempt == 2
            await other.reply("of the other")
            await other.ack()
            process.signal(signal.SIGCONT)
            await process.tell()
            assert [await process.line() for _ in range(3)] == ["lost"] * 3
        assert await receipt.status() == "done"
        assert await contents(ada) == ["of the other"]


async def check_a_thawed_holder_renews_no_lease_of_another(subject: Subject) -> None:
    """A frozen process renewed its lease until then; thawed, it does not renew what another has."""
    if subject.url is None or not hasattr(signal, "SIGSTOP"):
        return
    async with subject.bus(retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "work")
        async with run(subject, hold_and_settle) as process:
            assert await process.line() == "held"
            process.signal(signal.SIGSTOP)
            await claimed(bob, PATIENCE, lease=LEASE)
            process.signal(signal.SIGCONT)
            third = await claimed(bob, PATIENCE / 2)  # the hold is longer
            assert third.attempt == 3


# -- dead letters ------------------------------------------------------------------------


async def bury(bus: MessageBus, told: bool) -> None:
    """Let time pass, so that leases end; if `told`, die when told of the first dead letter."""
    if told:
        bus.on_dead_letter(lambda letter: die())
    say("begun")
    while True:
        await bus.stats()
        await asyncio.sleep(0)


async def check_a_burial_survives_its_process(subject: Subject) -> None:
    """Killed while messages become dead letters (D1), or before anyone was told of them (D2):
    each is a dead letter, once, with its content."""
    if subject.url is None:
        return
    async with subject.bus(retry=RetryPolicy(max_attempts=1)) as bus:
        bob = await bus.register("bob")
        for told in (False, True, False, True):
            for n in range(20):
                await bob.send("bob", n)
            for _ in range(20):
                await claimed(bob, PATIENCE, lease=LEASE)
            async with run(subject, bury, told) as process:
                if told:
                    await process.wait()
                else:
                    await _killed_soon(process, LEASE)
            await until(partial(_is_empty, bus, "bob"), "every lease has ended")
            letters = await bus.dead_letters("bob")
            found = [letter.message.content for letter in letters if letter.message]
            assert sorted(found) == list(range(20))
            assert {letter.reason for letter in letters} == {"exhausted"}
            assert await bus.discard(agent="bob") == 20


async def redrive_all(bus: MessageBus) -> None:
    """Redrive whatever is dead."""
    say("begun")
    while True:
        await bus.redrive(agent="bob")


async def check_a_redrive_survives_its_process(subject: Subject) -> None:
    """Killed while it redrives: each message is dead or pending, and delivered once in the end."""
    if subject.url is None:
        return
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        for _ in range(ROUNDS):
            for n in range(20):
                await bob.send("bob", n)
                await (await claimed(bob, PATIENCE)).reject("bad")
            async with run(subject, redrive_all) as process:
                await _killed_soon(process, 0.01)
            stats = (await bus.stats())["bob"]
            assert stats.pending["all"] + stats.dead == 20
            await bus.redrive(agent="bob")
            assert sorted(await contents(bob)) == list(range(20))
