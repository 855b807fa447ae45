"""What a witness notes of the calls it sees, and that such a history is one that can be judged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from afk.messaging import (
    IdempotencyConflictError,
    InMemoryA2ADeliveryStore,
    LeaseLostError,
    MessageBus,
    RetryPolicy,
    SQLiteA2ADeliveryStore,
    StoreError,
    UnknownAgentError,
)
from afk.messaging.testing.history import Event, History, digest, read
from afk.messaging.testing.verdict import Rules, judge
from afk.messaging.testing.witness import Witness, note_the_end

LEASE = 30.0


class Scene:
    """Two witnesses on one bus, with a history each."""

    def __init__(
        self, folder: Path, store: Any, bus: MessageBus, ann: Witness, bob: Witness
    ) -> None:
        self.folder = folder
        self.store = store
        self.bus = bus
        self.ann = ann
        self.bob = bob

    def noted(self, *kinds: str) -> list[Event]:
        return [event for event in read(self.folder) if event.kind in kinds]


@pytest.fixture(params=["memory", "sqlite"])
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    folder = tmp_path / "history"
    folder.mkdir()
    memory = request.param == "memory"
    store = InMemoryA2ADeliveryStore() if memory else SQLiteA2ADeliveryStore(tmp_path / "mail.db")
    histories = [History(folder, name) for name in ("ann", "bob")]
    retry = RetryPolicy(base=0.0, jitter="none")
    async with MessageBus(store, retry=retry) as bus:
        ann, bob = [Witness(await bus.register(history.name), history) for history in histories]
        yield Scene(folder, store, bus, ann, bob)
    for history in histories:
        history.close()


async def claimed(witness: Witness) -> Any:
    delivery = await witness.claim(0, lease=LEASE)
    assert delivery is not None
    return delivery


async def test_a_send_and_its_receipt(scene: Scene) -> None:
    first = await scene.ann.send("bob", {"n": 1}, key="k", priority="urgent")
    await scene.ann.send("bob", {"n": 1}, key="k")
    asked, end, again, known = scene.noted("send")
    assert (asked.phase, asked.key, asked.sender, asked.mailbox) == ("invoke", "k", "ann", "bob")
    assert (asked.digest, asked.rank, asked.process) == (digest({"n": 1}), 0, "ann")
    assert (end.phase, end.id, end.duplicate, end.call) == ("ok", first.id, False, asked.call)
    assert again.rank == 2
    assert (known.phase, known.id, known.duplicate) == ("ok", first.id, True)


async def test_a_refused_send(scene: Scene) -> None:
    await scene.ann.send("bob", 1, key="k")
    with pytest.raises(IdempotencyConflictError):
        await scene.ann.send("bob", 2, key="k")
    with pytest.raises(UnknownAgentError):
        await scene.ann.send("nobody", 1)
    ends = [event for event in scene.noted("send") if event.phase == "fail"]
    assert [event.error.split("(")[0] for event in ends] == [
        "IdempotencyConflictError",
        "UnknownAgentError",
    ]


async def test_a_send_of_unknown_outcome(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(turns: Any) -> Any:
        raise StoreError("the cable is cut")

    with monkeypatch.context() as patch:
        patch.setattr(scene.store, "put", fails)
        with pytest.raises(StoreError):
            await scene.ann.send("bob", 1)
    _, end = scene.noted("send")
    assert end.phase == "unknown"
    assert "the cable is cut" in end.error


async def test_a_cancelled_send(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asyncio.Event()

    async def hangs(turns: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(scene.store, "put", hangs)
        sending = asyncio.create_task(scene.ann.send("bob", 1))
        await begun.wait()
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
    assert [event.phase for event in scene.noted("send")] == ["invoke", "unknown"]


async def test_a_claim_and_its_settle(scene: Scene) -> None:
    receipt = await scene.ann.send("bob", "work")
    assert await scene.ann.claim(0, lease=LEASE) is None
    delivery = await claimed(scene.bob)
    await scene.bob.settle(delivery, "extend", LEASE)
    await scene.bob.settle(delivery, "done")
    [claim] = scene.noted("claim")
    assert (claim.id, claim.mailbox, claim.digest) == (receipt.id, "bob", digest("work"))
    assert (claim.token, claim.attempt, claim.lease) == (delivery.token, 1, LEASE)
    assert claim.since <= claim.at
    settles = [(event.phase, event.outcome, event.token) for event in scene.noted("settle")]
    assert settles == [
        ("invoke", "extend", delivery.token),
        ("ok", "extend", delivery.token),
        ("invoke", "done", delivery.token),
        ("ok", "done", delivery.token),
    ]


@pytest.mark.parametrize(
    ("outcome", "state"), [("again", "pending"), ("back", "pending"), ("dead", "dead")]
)
async def test_every_other_outcome(scene: Scene, outcome: str, state: str) -> None:
    receipt = await scene.ann.send("bob", "work")
    await scene.bob.settle(await claimed(scene.bob), outcome)
    assert await receipt.status() == state
    assert [event.outcome for event in scene.noted("settle")] == [outcome] * 2


async def test_a_settle_after_the_lease_was_lost(scene: Scene) -> None:
    await scene.ann.send("bob", "work")
    old = await claimed(scene.bob)
    await old.extend(0.0)
    new = await claimed(scene.bob)
    with pytest.raises(LeaseLostError):
        await scene.bob.settle(old, "done")
    await scene.bob.settle(new, "done")
    ends = [event for event in scene.noted("settle") if event.phase != "invoke"]
    assert [(event.phase, event.error) for event in ends] == [("fail", "lost"), ("ok", "")]


async def test_a_settle_of_unknown_outcome(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(turns: Any) -> Any:
        raise StoreError("the cable is cut")

    await scene.ann.send("bob", "work")
    delivery = await claimed(scene.bob)
    with monkeypatch.context() as patch:
        patch.setattr(scene.store, "put", fails)
        with pytest.raises(StoreError):
            await scene.bob.settle(delivery, "done")
    assert [event.phase for event in scene.noted("settle")] == ["invoke", "unknown"]


async def test_a_handler_that_fails_and_then_works(scene: Scene) -> None:
    worked = asyncio.Event()

    async def work(delivery: Any) -> None:
        if delivery.attempt == 1:
            raise ValueError("once")
        worked.set()

    receipt = await scene.ann.send("bob", "work")
    serving = asyncio.create_task(scene.bob.mailbox.serve(scene.bob.handler(work, lease=5.0)))
    await worked.wait()
    assert await receipt.settled(10) == "done"
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving
    handled = [(event.phase, event.attempt, event.lease) for event in scene.noted("handle")]
    assert handled == [("invoke", 1, 5.0), ("fail", 1, 5.0), ("invoke", 2, 5.0), ("ok", 2, 5.0)]


async def test_the_end_is_all_there_is(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afk.messaging.testing.witness.PAGE", 2)  # several pages
    for number in range(5):
        await scene.ann.send("bob", number)
    for outcome in ("done", "dead", "again"):
        await scene.bob.settle(await claimed(scene.bob), outcome)
    await note_the_end(scene.bus, scene.ann.history, last_fault=7.0)
    ends = [(event.digest, event.outcome, event.error) for event in scene.noted("final")]
    assert ends == [
        (digest(0), "done", ""),
        (digest(1), "dead", "rejected"),
        (digest(2), "pending", ""),
        (digest(3), "pending", ""),
        (digest(4), "pending", ""),
    ]
    assert [event.since for event in scene.noted("drained")] == [7.0]


async def test_what_leaves_with_the_ack_is_in_doubt(scene: Scene) -> None:
    await scene.ann.send("bob", "question")
    delivery = await claimed(scene.bob)
    message = await scene.bob.onward(delivery, "ann", "answer")
    await scene.bob.settle(delivery, "done")
    asked, end = [event for event in scene.noted("send") if event.process == "bob"]
    assert (asked.phase, end.phase, end.id) == ("invoke", "unknown", message.id)
    assert (asked.mailbox, asked.digest) == ("ann", digest("answer"))


async def test_such_a_history_is_judged(scene: Scene) -> None:
    for number in range(4):
        await scene.ann.send("bob", number, key=f"k{number}")
    await scene.bob.settle(await claimed(scene.bob), "again")
    while (delivery := await scene.bob.claim(0, lease=LEASE)) is not None:
        await scene.bob.settle(delivery, "done")
    await note_the_end(scene.bus, scene.ann.history, last_fault=0.0)
    verdict = judge(read(scene.folder), Rules(max_attempts=5))
    assert verdict.violations == []
    assert verdict.counts["done"] == 4
    assert verdict.counts["repeats"] == 1
