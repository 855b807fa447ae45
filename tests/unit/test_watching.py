"""Watchers see what a bus does and cannot harm it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from afk.messaging import Delivery, InMemoryMessageBus, LeaseLostError
from afk.messaging.lifecycle import GIVE_BACK, Again, Dead, Done, Extend, Outcome
from afk.messaging.store import Batch, Claim, Leased, Verdict
from afk.messaging.watching import Ended, Leases, Step, Told, verb


class Notes:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def putting(self, steps: tuple[Step, ...]) -> tuple[Any, Told]:
        def told(results: Sequence[Verdict] | BaseException) -> None:
            self.seen.append((steps, results))

        return tuple(step.turn for step in steps), told

    def claimed(self, claim: Claim, batch: Batch | Exception, seconds: float) -> None:
        self.seen.append((claim.mailbox, batch))

    def handling(self, leased: Leased, record: Any) -> Ended:
        self.seen.append(leased.id)
        return self.seen.append


class Broken:
    """Fails at the first call, or when it is told how that went."""

    def __init__(self, at_once: bool) -> None:
        self.at_once = at_once

    def _fail(self, *_: Any) -> Any:
        raise ZeroDivisionError("a watcher's own mistake")

    def putting(self, steps: tuple[Step, ...]) -> tuple[Any, Told]:
        return self._fail() if self.at_once else (tuple(step.turn for step in steps), self._fail)

    def claimed(self, claim: Claim, batch: Batch | Exception, seconds: float) -> None:
        self._fail()

    def handling(self, leased: Leased, record: Any) -> Ended:
        return self._fail() if self.at_once else self._fail


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_watcher_that_fails_harms_nothing(
    at_once: bool, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes()
    async with InMemoryMessageBus() as bus:
        bus.watch(Broken(at_once))
        bus.watch(notes)
        ada, bob = await bus.register("ada"), await bus.register("bob")
        receipt = await ada.send("bob", 1)
        async with await bob.claim(timeout=1) as delivery:
            assert delivery.message.content == 1
        assert await receipt.status() == "done"
    assert "a watcher of the bus failed" in caplog.text
    assert receipt.id in notes.seen
    assert None in notes.seen


async def test_the_lease_is_told_with_what_settles_it() -> None:
    notes = Notes()
    async with InMemoryMessageBus() as bus:
        bus.watch(notes)
        bob = await bus.register("bob")
        await bob.send("bob", 1)
        delivery = await bob.claim(timeout=1)
        await delivery.extend(60)
        await delivery.ack()
        with pytest.raises(LeaseLostError):
            await (await _again(delivery)).ack()
    _, (_, batch), *settles = notes.seen
    [leased] = batch.leased
    assert [steps[0].leased for steps, _ in settles] == [leased, leased, None]


async def _again(delivery: Delivery[Any]) -> Delivery[Any]:
    """The same lease in other hands."""
    parts = (delivery._core, delivery._view, delivery._leased, delivery._record)
    return Delivery(*parts, delivery.message, 30.0, delivery._policy)


@pytest.mark.parametrize(
    ("outcome", "name"),
    [
        (Done(), "ack"),
        (Again(1.0), "nack"),
        (Dead("exhausted"), "nack"),
        (Dead("rejected"), "reject"),
        (Dead("undecodable"), "reject"),
        (GIVE_BACK, "give_back"),
        (Extend(1.0), "extend"),
    ],
)
def test_what_the_caller_did_has_a_name(outcome: Outcome, name: str) -> None:
    assert verb(outcome) == name


def test_leases_that_nobody_ends_are_let_go_of() -> None:
    leases: Leases[int] = Leases()
    for number in range(Leases.MOST + 3):
        leases.keep(str(number), number)
    assert len(leases) == Leases.MOST
    assert min(leases.values()) == 3
