"""Any sequence of calls, on any store, ends where a small model of the lifecycle says."""

from __future__ import annotations

import asyncio
import traceback
from random import Random
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from afk.messaging import InMemoryA2ADeliveryStore

from ...trial import Ground, Outcome, Part, Trial
from .differential import CALLS, differ
from .machine import Machine
from .places import maker

STEPS = 40


async def sequences(ground: Ground, rounds: int, seed: int) -> Outcome:
    """So many sequences of calls, or up to the first that parts from the model."""
    make, outcome = maker(ground), Outcome(rounds)
    counts = outcome.counts

    def run() -> None:
        @hypothesis.seed(seed)
        class Here(Machine):
            def __init__(self) -> None:
                super().__init__(make)
                counts["sequences, tries to shorten included"] += 1

            def check_invariants(self, *args: Any, **kwargs: Any) -> None:
                counts["calls"] += 1
                super().check_invariants(*args, **kwargs)

        run_state_machine_as_test(
            Here,
            settings=settings(
                max_examples=rounds,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                phases=[Phase.generate],  # to make a failure short takes minutes on a server
                suppress_health_check=list(HealthCheck),
            ),
        )

    try:
        await asyncio.to_thread(run)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is not what the model says
        where = traceback.format_tb(error.__traceback__)[-1:]
        notes = getattr(error, "__notes__", [])
        outcome.violations.append("\n".join([repr(error), *where, *notes]))
    return outcome


async def alike(ground: Ground, rounds: int, seed: int) -> Outcome:
    """Random calls of the port, on this store and on the memory store with one clock."""
    rng, make, outcome = Random(seed), maker(ground), Outcome(rounds)
    for _ in range(rounds):
        try:
            await differ(
                lambda clock: InMemoryA2ADeliveryStore(clock=clock),
                make,
                rng.getrandbits(32),
                forgets=ground.store != "postgres",
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, memory did not do so
            outcome.violations.append(repr(error))
    outcome.counts["calls"] = rounds * CALLS
    return outcome


PART = Part(
    name="model",
    title="A model of the lifecycle",
    about="""\
Hypothesis makes up sequences of 40 calls: send (with priorities, delays, ttls, threads, and under
keys that are used again, with other contents too), broadcast, ask, fill a mailbox for ten, claim,
ack with and without a send, answer, nack, reject, give back, extend, cancel, redrive, discard,
unregister and register again, and time that passes, on a clock that is turned by hand. Each call
must be taken or refused as a small model says, and after it the store must show what the model has:
each message's state, attempts, reason and place, the counts, the order; and who asked has the
answer, or has heard that there will be none, or waits. The same machine runs on all stores. A
round is a sequence. It is one process, so it says nothing of races, and nothing is old enough to
be let go of.

In the second line, 120 random calls of the port itself, wild ones among them (used tokens, unknown
names, second answers), are made on this store and on the memory store: both must answer alike, and
now and then show alike. A round is one such run. Whatever is brought about by time is asked for
before it is compared. What stores may do each in their own way is left out: the order of what is
accepted in one turn or dies or is redriven at one moment, what their fences and cursors are, the
age of a redriven message, the pause after a lease that was taken up again after its end;
PostgreSQL, which lets go of old messages every few seconds, does not let go of any here.""",
    trials=(
        Trial(
            "sequences of calls",
            sequences,
            small=5,
            large={"memory": 10_000, "sqlite": 2_000, "": 1_000},
            batch=100,
            stores=("memory", "sqlite", "redis", "postgres", "nats"),
        ),
        Trial(
            "the same as memory, call by call",
            alike,
            small=2,
            large={"": 500},
            batch=50,
        ),
    ),
)
