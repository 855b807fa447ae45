"""Who was frozen while another finished its work, and then goes on as if nothing had happened."""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import signal
import time
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

from afk.messaging import Delivery, LeaseLostError, MessageBus, RetryPolicy, connect
from afk.messaging.testing.history import History, read
from afk.messaging.testing.processes import Process, hear, run, say
from afk.messaging.testing.steps import Effects
from afk.messaging.testing.verdict import Rules, judge
from afk.messaging.testing.witness import Witness, note_the_end

from ..clock import Clock, lacks
from ..place import Place
from ..trial import Ground, Outcome, Part, Run, Trial

AT_ONCE = 25
"""Messages that one zombie holds."""
LEASE = 1.0
LATE = 15.0
"""Seconds after the lease in which a loaded machine has given it to another."""
PATIENCE = 60.0
JUMP = 1800.0
"""Seconds by which a clock jumps, this way or that; less than a message is kept that is done."""
OFTEN = RetryPolicy(max_attempts=1000, base=0.0, jitter="none")
Trouble = Literal["freeze", "block", "jump"]
WAYS = ("done", "again", "dead", "back", "extend", "effect")


async def hold(
    bus: MessageBus, notes: str, seed: int, table: str, count: int, trouble: Trouble
) -> None:
    """Claim so many; then, after the trouble, settle them.

    A clock jumps while it waits; it asks how things stand before it settles, so that time passes
    by that clock.
    """
    logging.disable()
    rng = random.Random(seed)
    witness = Witness(await bus.register("bob"), History(Path(notes), "zombie"))

    async def one() -> Delivery[Any]:
        delivery = await witness.claim(PATIENCE, lease=LEASE)
        assert delivery is not None
        await delivery.send("next", "of the zombie")
        if trouble == "freeze" and rng.random() < 0.5:
            await delivery.hold(PATIENCE)  # renewed, until it is frozen
        return delivery

    held = await asyncio.gather(*(one() for _ in range(count)))  # all before a lease ends
    clock = time.time()
    say("held")
    if trouble == "block":
        time.sleep(2 * LEASE)  # noqa: ASYNC251 - it is the point
    hear()
    if trouble == "jump":
        assert abs(time.time() - clock) > JUMP / 2, "the clock has not jumped"
        await bus.stats()
    say([await _accepted(witness, delivery, rng.choice(WAYS), table) for delivery in held])


async def _accepted(witness: Witness, delivery: Delivery[Any], way: str, table: str) -> str:
    """What the zombie could do, if anything."""
    try:
        if way == "effect" and table:
            async with delivery.transaction() as connection:
                await Effects(table).add(connection, delivery.message.id)
        else:
            more: dict[str, Any] = {"again": ("late",), "extend": (LEASE,)}
            way = "done" if way == "effect" else way
            await witness.settle(delivery, way, *more.get(way, ()))
    except LeaseLostError:
        return ""
    return way


def zombies(trouble: Trouble) -> Run:
    """A zombie for every 25 rounds; a round is a message that it held."""

    async def trial(ground: Ground, rounds: int, seed: int) -> Outcome:
        outcome, rng = Outcome(), random.Random(seed)
        while outcome.rounds < rounds:
            count = min(AT_ONCE, rounds - outcome.rounds)
            outcome.add(await _zombie(ground, rng, count, trouble))
        return outcome

    return trial


async def _zombie(ground: Ground, rng: random.Random, count: int, trouble: Trouble) -> Outcome:
    name = uuid.uuid4().hex
    notes = ground.folder / f"notes-{name}"
    notes.mkdir()
    url = f"sqlite:///{ground.folder}/{name}.db"
    if ground.store != "sqlite":
        url = f"{ground.url}?namespace={name}"
    history = History(notes, "harness")
    async with connect(url, retry=OFTEN) as bus:
        for each in ("bob", "next"):
            await bus.register(each)
        bob = Witness(bus.mailbox("bob"), history)
        for number in range(count):
            await bob.send("bob", number)
        effects = await _effects(bus, ground)
        table = effects.name if effects else ""
        seed = rng.randrange(10**9)
        async with AsyncExitStack() as life:
            clock = Clock(ground.folder / "clock")
            if trouble == "jump":
                life.enter_context(clock.worn())
            process = run(Place(url), hold, str(notes), seed, table, count, trouble)
            zombie = await life.enter_async_context(process)
            await zombie.line(PATIENCE)
            if trouble == "jump" and ground.store == "sqlite":  # its clock is that of its users
                history.note("fault", process="zombie", outcome="clock jumps")
            clock.set(rng.choice((JUMP, -JUMP)))
            freeze = trouble == "freeze"
            outcome = await _outlived(bob, zombie, history, effects, count, freeze=freeze)
        found = [] if effects is None else await _written(bus, effects)
        for effect in found:
            history.note("effect", id=effect)
        outcome.violations += await _left(bus, found, count if effects else 0)
        await note_the_end(bus, history, time.monotonic())
    history.close()
    verdict = judge([e for e in read(notes) if e.mailbox != "look"], Rules(drained=False))
    outcome.violations += verdict.violations
    shutil.rmtree(notes)
    return outcome


async def _outlived(
    bob: Witness,
    zombie: Process,
    history: History,
    effects: Effects | None,
    count: int,
    *,
    freeze: bool,
) -> Outcome:
    """Freeze it, finish its work, and let it go on."""
    outcome = Outcome(count)
    if freeze:
        history.note("fault", process="zombie", outcome="frozen")
        zombie.signal(signal.SIGSTOP)
    since = time.monotonic()
    released = []
    for _ in range(count):
        delivery = await bob.claim(PATIENCE, lease=PATIENCE)
        if delivery is None:
            outcome.violations.append("nobody got what the zombie held")
            break
        released.append(max(0.0, time.monotonic() - since - LEASE))
        if released[-1] > LATE:
            late = f"released {released[-1]:.1f} s after the lease had ended"
            outcome.violations.append(f"{late}, for attempt {delivery.attempt}")
        if effects is None:
            await bob.settle(delivery, "done")
        else:
            async with delivery.transaction() as connection:
                await effects.add(connection, delivery.message.id)
    outcome.seconds["released"] = released
    if freeze:
        zombie.signal(signal.SIGCONT)
        history.note("fault", process="zombie", outcome="goes on")
    await zombie.tell()
    ways = [way for way in await zombie.line(PATIENCE) if way]
    outcome.violations += [f"a zombie's {way} was accepted" for way in ways]
    return outcome


async def _effects(bus: MessageBus, ground: Ground) -> Effects | None:
    """A table for them, where they can be part of a turn."""
    if ground.store not in {"sqlite", "postgres"}:
        return None
    effects = Effects()
    async with (await _look(bus)).transaction() as connection:
        await effects.create(connection)
    return effects


async def _written(bus: MessageBus, effects: Effects) -> list[str]:
    async with (await _look(bus)).transaction() as connection:
        return await effects.all(connection)


async def _look(bus: MessageBus) -> Delivery[Any]:
    """A turn in which the database can be looked at."""
    look = await bus.register("look")
    await look.send("look", "look")
    delivery = await look.claim(PATIENCE)
    assert delivery is not None
    return delivery


async def _left(bus: MessageBus, found: list[str], effects: int) -> list[str]:
    """What a zombie has left behind: there must be nothing."""
    sentences = []
    if len(found) != effects or len(set(found)) != effects:
        sentences.append(f"{len(found)} effects of {effects} messages")
    if sent := await bus.mailbox("next").message_count():
        sentences.append(f"{sent} messages of a zombie's turns left")
    return sentences


PART = Part(
    name="zombies",
    title="Zombies",
    about="""\
A process holds 25 messages, half of them renewed, and is frozen with SIGSTOP (or its event loop is
blocked, none renewed) for longer than its lease of one second. Another one gets all of them, and
finishes them. Then the first goes on, and tries to ack, nack, reject, give back or extend each, or
to commit a transaction with an effect in it; with each it has something to send. Nothing of that
may be accepted or leave, and each message has one effect. A round is a message. `released` is from
the end of the lease, as the frozen process would have had it at the latest, to the moment when the
other one has the message; it takes them one after the other.

Or the wall clock of the process jumps half an hour forward or back (libfaketime) once it holds its
messages, none renewed; it is not frozen, and when the other one has finished it lets time pass by
its clock, and goes on. No lease may end early either, except on SQLite, where the clock is that of
the machine: there a jump forward ends leases, and what was held comes again.""",
    trials=(
        Trial("frozen holder", zombies("freeze"), 25, {"": 1000}, 100),
        Trial("blocked holder", zombies("block"), 25, {"": 500}, 100),
        Trial("holder whose clock jumps", zombies("jump"), 25, {"": 500}, 100, needs=lacks),
    ),
)
