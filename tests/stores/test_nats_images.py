"""Images of the state are made, read and replaced, and the log is purged, under everyone's feet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from afk.messaging import MessageBus, StoreError
from afk.messaging.stores.nats import images, stream
from afk.messaging.stores.nats.compaction import compact
from afk.messaging.stores.nats.replica import Replica
from afk.messaging.testing.processes import say
from afk.messaging.testing.servers import NATS, find
from afk.messaging.testing.steps import contents, until

from .over_nats import (
    Way,
    bus_at,
    elsewhere,
    jetstream,
    link_of,
    log_of,
    more,
    same_state,
    traffic,
    within,
)

KEPT = 60_000


@pytest.fixture(autouse=True)
def _early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replica, "least_log", KEPT)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NATS]:
    """A server that the test may damage; its small messages make many slices."""
    with NATS(find("nats"), tmp_path / "server", "max_payload: 65536") as server:
        yield server


async def at_once(bus: MessageBus) -> bool:
    """Make an image now."""
    link = link_of(bus)
    return await compact(link._place, link._names, link.created)


async def kept(server: NATS) -> tuple[int, int, set[int]]:
    """The first message of the log, the number of manifests, and the images of which there are
    slices."""
    names = log_of()
    async with jetstream(server.url) as js:
        first = (await js.stream_info(names.log)).state.first_seq
        info = await js._jsm.stream_info(names.images, subjects_filter=f"{names.manifest}.>")
        slices = {int(subject.split(".")[-2]) for subject in info.state.subjects or {}}
        return first, info.state.messages - sum((info.state.subjects or {}).values()), slices


async def filled(bus: MessageBus, number: int = 60) -> None:
    """Messages of every fate."""
    mailbox = await bus.register("a")
    for index in range(number):
        await mailbox.send("a", [index, "x" * 3_000], delay=100.0 if index % 5 == 0 else 0.0)
    for index in range(number // 2):
        delivery = await mailbox.claim(timeout=0, lease=60)
        assert delivery is not None
        if index % 3 == 0:
            await delivery.ack()
        elif index % 3 == 1:
            await delivery.reject("no")


async def test_log_and_images_are_purged_and_who_comes_goes_on_from_the_image(
    server: NATS,
) -> None:
    async with bus_at(server.url) as bus, bus_at(server.url) as other, same_state(bus, other):
        await filled(bus)
        async with same_state(bus, other):
            await until(lambda: link_of(bus).replica.image > 0, "an image is made")
        first = 0

        async def purged() -> bool:
            nonlocal first
            first, manifests, slices = await kept(server)
            return first > 10 and manifests == 1 and len(slices) == 1

        await until(purged, "what is not needed is gone", 10)
        async with bus_at(server.url) as new:
            mailbox = await new.register("a")
            async with same_state(bus, other, new):
                assert await mailbox.message_count() > 0
            async with same_state(bus, other, new):
                await mailbox.send("a", "more")
                await mailbox.send("a", "and more", idempotency_key="k")
                assert (await mailbox.send("a", "and more", idempotency_key="k")).duplicate


async def compacting(bus: MessageBus, number: int) -> None:
    """In another process: sends much, with images made early."""
    Replica.least_log = KEPT
    mailbox = await bus.register("eve")
    for index in range(number):
        await mailbox.send("eve", [index, "y" * 3_000])
        delivery = await mailbox.claim(timeout=0)
        assert delivery is not None
        await delivery.ack()
    say(number)


async def test_images_are_made_under_load_by_several_processes(server: NATS) -> None:
    senders, consumers = bus_at(server.url), bus_at(server.url)
    async with (
        elsewhere(server.url, compacting, 150) as one,
        elsewhere(server.url, compacting, 150) as two,
        senders,
        consumers,
        same_state(senders, consumers),
        traffic(senders, consumers, padding=lambda: "x" * 2_000) as seen,
    ):
        assert one is not None
        assert two is not None
        comers = 0
        lines = asyncio.gather(one.line(), two.line())
        while not lines.done():
            async with bus_at(server.url) as comer:  # while images are replaced
                await comer.agents()
                comers += 1
            await asyncio.sleep(0.02)
        await lines
        await more(seen.handled)
        assert comers > 3
    assert not seen.failures
    first, _, slices = await kept(server)
    assert first > 100
    assert len(slices) <= 3, "unfinished images are left"


async def test_two_compactors_at_once_do_not_disturb_each_other(
    server: NATS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Replica, "least_log", 2**30)  # none but those
    async with bus_at(server.url) as bus, bus_at(server.url) as other:
        await filled(bus, 20)
        for _ in range(5):
            await filled(other, 10)
            made = await asyncio.gather(at_once(bus), at_once(other), at_once(bus))
            assert any(made)
            async with bus_at(server.url) as new, same_state(bus, other, new):
                assert await contents(await new.register("none")) == []
        _, manifests, slices = await kept(server)
        assert manifests == 1
        assert len(slices) == 1


async def test_a_compactor_that_dies_half_way_leaves_nothing_for_ever(
    server: NATS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Replica, "least_log", 2**30)  # none but those
    async with bus_at(server.url) as bus:
        await filled(bus, 20)
        assert await at_once(bus)

        for step, dies_at in ((stream.publish, 2), (stream._purge, 1), (stream._purge, 3)):
            await filled(bus, 10)
            calls = 0

            async def dying(
                *args: Any,
                step: Callable[..., Awaitable[Any]] = step,
                at: int = dies_at,
                **more: Any,
            ) -> Any:
                nonlocal calls
                calls += 1
                if calls == at:
                    raise StoreError("dead")
                return await step(*args, **more)

            with monkeypatch.context() as patch:
                patch.setattr(stream, step.__name__, dying)
                with pytest.raises(StoreError, match="dead"):
                    await at_once(bus)
            async with bus_at(server.url) as new, same_state(bus, new):
                await new.agents()
        await filled(bus, 10)
        assert await at_once(bus)
        first, manifests, slices = await kept(server)
        assert manifests == 1
        assert len(slices) == 1
        assert first in slices


async def test_a_process_that_was_away_reads_anew(
    server: NATS, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Replica, "least_log", 2**30)
    async with Way(server) as way, bus_at(way.url) as bus, bus_at(server.url) as other:
        mailbox = await bus.register("bob")
        waiting = asyncio.create_task(mailbox.receive(timeout=40))
        await asyncio.sleep(0.1)
        way.swallow()
        await (await other.register("a")).send("bob", "hello")
        await filled(other)
        assert await at_once(other)
        await filled(other, 10)
        assert "read anew" not in caplog.text
        assert (await within(15, waiting)).content == "hello"
        assert "read anew" in caplog.text
        async with same_state(bus, other):
            pass


async def test_who_stands_where_the_image_was_made_goes_on(
    server: NATS, caplog: pytest.LogCaptureFixture
) -> None:
    async with Way(server) as way, bus_at(way.url) as bus:
        mailbox = await bus.register("a")
        await mailbox.send("a", 1)
        assert await at_once(bus)
        async with bus_at(way.url) as new:  # from the image
            await new.agents()
            for _ in range(2):
                sessions = [link_of(each)._session for each in (bus, new)]
                way.cut()
                await until(
                    lambda sessions=sessions: all(session.over for session in sessions), "cut"
                )
                async with same_state(bus, new):
                    await mailbox.send("a", 2)
    assert "read anew" not in caplog.text


async def test_a_group_that_went_into_an_image_unseen_is_not_done_twice(
    server: NATS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is lost with the log; what was asked is not asked anew."""
    monkeypatch.setattr(Replica, "least_log", 2**30)
    async with Way(server) as way, bus_at(way.url) as bus, bus_at(server.url) as other:
        mailbox, same = await bus.register("a"), await other.register("a")
        before = way.held
        way.open.clear()
        sending = asyncio.create_task(mailbox.send("a", "once", idempotency_key="k"))
        await until(lambda: way.held > before, "its answer is under way")
        assert await same.message_count() == 1
        await filled(other, 5)
        assert await at_once(other)
        way.cut()
        way.open.set()
        error = await within(8, sending)
        assert isinstance(error, StoreError)
        assert "unknown" in str(error)
        assert (await mailbox.send("a", "once", idempotency_key="k")).duplicate
        async with same_state(bus, other):
            pass


async def test_a_stream_that_is_made_anew_has_nothing_of_the_old_image(
    server: NATS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Replica, "least_log", 2**30)
    async with bus_at(server.url) as bus:
        await filled(bus, 20)
        assert await at_once(bus)
    async with jetstream(server.url) as js:
        await js.delete_stream(log_of().log)
    async with bus_at(server.url) as bus:
        assert await bus.agents() == []
        mailbox = await bus.register("b")
        await mailbox.send("b", 1)
        assert await at_once(bus)
        _, manifests, slices = await kept(server)
        assert (manifests, len(slices)) == (1, 1)
    async with bus_at(server.url) as bus:
        assert await contents(await bus.register("b")) == [1]


async def test_no_room_for_an_image_is_no_harm(
    server: NATS, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def full(*_: Any) -> None:
        raise StoreError("no room")

    async with bus_at(server.url) as bus:
        with monkeypatch.context() as patch:
            patch.setattr(images, "store", full)
            await filled(bus, 40)
            await until(lambda: "no image" in caplog.text, "it is said")
        await filled(bus, 60)
        await until(lambda: link_of(bus).replica.image > 0, "it is made later")
