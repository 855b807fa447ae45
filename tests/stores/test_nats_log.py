"""The log is not what it was, is full, or has in it what is nobody's."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
import pytest

from afk.messaging import (
    AgentMailbox,
    AgentMessage,
    ConfigurationError,
    Delivery,
    LeaseLostError,
    MessageBus,
    StoreError,
)
from afk.messaging.store import Box, Query
from afk.messaging.stores.nats import steps
from afk.messaging.stores.nats.steps import Bind
from afk.messaging.testing.processes import say
from afk.messaging.testing.servers import NATS, find
from afk.messaging.testing.steps import claimed, contents, serving, until

from .over_nats import (
    bus_at,
    elsewhere,
    failure_of,
    jetstream,
    link_of,
    log_of,
    more,
    repeated,
    same_state,
    space,
    store_of,
    traffic,
    within,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NATS]:
    """A server that the test may damage."""
    with NATS(find("nats"), tmp_path / "server") as server:
        yield server


@pytest.fixture
def small(tmp_path: Path) -> Iterator[NATS]:
    """A server that takes small messages only."""
    with NATS(find("nats"), tmp_path / "server", "max_payload: 65536") as server:
        yield server


# -- it is gone --------------------------------------------------------------------------


async def says(text: str, bus: MessageBus, mailbox: AgentMailbox) -> None:
    """Every call fails, and says so."""
    calls = (
        mailbox.send(mailbox.name, 2),
        mailbox.receive(timeout=0),
        mailbox.claim(timeout=0.1),
        mailbox.request(mailbox.name, 2, timeout=1),
        mailbox.message_count(),
        mailbox.peek(),
        mailbox.broadcast(2),
        bus.agents(),
        bus.stats(),
        bus.register("new"),
    )
    for call in calls:
        error = await within(5, call)
        assert isinstance(error, StoreError)
        assert text in str(error)


@asynccontextmanager
async def at_work(server: NATS) -> AsyncIterator[tuple[MessageBus, AgentMailbox]]:
    """A bus with a message in someone's hands, and a consumer."""
    async with bus_at(server.url, poll=0.2) as bus:
        mailbox = await bus.register("a")
        await mailbox.send("a", 1)
        held = await claimed(mailbox)
        handled = []

        async def handler(delivery: Delivery[AgentMessage]) -> None:
            handled.append(delivery.message.content)

        async with serving(mailbox, handler) as task:
            yield bus, mailbox
            with pytest.raises(StoreError):
                await held.ack()
            assert not task.done()
        assert handled == []


async def test_a_deleted_stream_is_said_and_not_taken_for_an_empty_one(server: NATS) -> None:
    async with at_work(server) as (bus, mailbox), jetstream(server.url) as js:
        await js.delete_stream(log_of().log)
        await says("deleted", bus, mailbox)
        async with bus_at(server.url) as new:  # which makes it anew
            there = await new.register("a")
            await there.send("a", "new")
            await says("deleted", bus, mailbox)
            assert await contents(there) == ["new"]


async def test_a_purged_stream_is_said_and_not_taken_for_an_empty_one(server: NATS) -> None:
    async with at_work(server) as (bus, mailbox), jetstream(server.url) as js:
        await js.purge_stream(log_of().log)
        await until(lambda: link_of(bus)._broken is not None, "whoever looks notices")
        await says("purged", bus, mailbox)
        with pytest.raises(ConfigurationError, match="purged, or set back, by hand"):
            await bus_at(server.url).register("a")


async def test_a_stream_that_was_set_back_is_read_anew_and_that_is_said(
    server: NATS, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus_at(server.url) as bus, bus_at(server.url) as other:
        mailbox, bob = await bus.register("a"), await other.register("bob")
        await mailbox.send("a", "before")
        server.stop()
        shutil.copytree(server.folder / "jetstream", tmp_path / "copy")
        await asyncio.to_thread(server.start)
        await mailbox.send("a", "lost")
        held = await claimed(mailbox)
        server.kill()
        shutil.rmtree(server.folder / "jetstream")
        shutil.move(tmp_path / "copy", server.folder / "jetstream")
        caplog.clear()
        waiting = asyncio.create_task(bob.receive(timeout=40))
        await asyncio.to_thread(server.start)
        await within(10, mailbox.send("bob", "hello"))
        assert (await within(10, waiting)).content == "hello"
        assert "read anew" in caplog.text
        assert await contents(mailbox) == ["before"]
        with pytest.raises(LeaseLostError):
            await held.ack()
        async with same_state(bus, other):
            pass


# -- it takes nothing --------------------------------------------------------------------


async def test_a_server_without_jetstream_is_said(server: NATS) -> None:
    class Plain(NATS):
        def _text(self) -> str:
            lines = super()._text().splitlines()
            return "\n".join(line for line in lines if "jetstream" not in line)

        def _answers(self) -> bool:
            return self.info(1.0).get("server_name") == self.name

    with (
        Plain(find("nats"), server.folder.parent / "plain") as plain,
        pytest.raises(StoreError, match="-js"),
    ):
        await bus_at(plain.url, patience=0.5).register("a")


async def test_an_account_without_jetstream_is_said(tmp_path: Path) -> None:
    accounts = 'accounts { A { users: [{ user: ann, password: "p" }] } }'
    with NATS(find("nats"), tmp_path, accounts) as server:
        url = server.url.replace("//", "//ann:p@")
        with pytest.raises((StoreError, ConfigurationError), match="-js"):
            await bus_at(url, patience=0.5).register("a")


async def test_a_server_without_room_takes_no_mail_until_it_has_some(tmp_path: Path) -> None:
    with NATS(find("nats"), tmp_path, max_file_store=2_000_000) as server:
        async with bus_at(server.url) as bus, jetstream(server.url) as js:
            mailbox = await bus.register("a")
            await js.add_stream(name="ballast", subjects=["ballast"])
            sent = 0
            while True:
                try:
                    await js.publish("ballast", b"x" * 100_000)
                except Exception:  # noqa: BLE001 - it is full
                    break
            while not (
                error := await failure_of(
                    mailbox.send("a", "x" * 50_000, idempotency_key=str(sent))
                )
            ):
                sent += 1
            assert "nothing was stored" in str(error)
            assert await mailbox.message_count() == sent
            await js.purge_stream("ballast")
            await mailbox.send("a", "more", idempotency_key=str(sent))
            assert len(await contents(mailbox)) == sent + 1


async def test_a_stream_with_a_limit_says_when_it_is_reached(server: NATS) -> None:
    namespace = space()
    names = log_of(namespace)
    async with jetstream(server.url) as js:
        limits: Any = {"max_msgs": 5, "discard": "new"}
        await js.add_stream(name=names.log, subjects=[names.steps], **limits)
        async with bus_at(server.url, namespace) as bus:
            mailbox = await bus.register("a")
            while not (error := await failure_of(mailbox.send("a", 1))):
                pass
            assert "maximum messages" in str(error)
            assert "nothing was stored" in str(error)
            assert await mailbox.message_count() > 0


# -- what is in it -----------------------------------------------------------------------


async def test_junk_in_the_log_is_passed_over(server: NATS) -> None:
    pack = msgspec.msgpack.encode
    good = steps.packed((Bind(Box(name="x")),))
    junk = [
        b"",
        b"\x00",
        b"hello",
        b"\xff" * 1000,
        pack({"version": 1}),
        pack([]),
        pack([1]),
        pack(["1", "w", 1, 0, 1, None, good]),
        pack([1, "w", 1, 0, 1, None, b"no ops"]),
        pack([1, "w", 2, 5, 1, None, good]),
        pack([1, "w", 3, 0, 0, None, good]),
        pack([1, "w", 4, -1, 2, None, good]),
        pack([1, "w", -5, 0, 1, None, good]),
        pack([1, "w", 2**70 % 2**64, 0, 1, None, pack([["zz", 1]])]),
    ]
    async with bus_at(server.url) as bus, jetstream(server.url) as js:
        mailbox = await bus.register("a")
        for number, data in enumerate(junk):
            await js.publish(log_of().steps, data)
            await js.publish(log_of().steps, data, headers={"Status": "100"})
            await mailbox.send("a", number)
        async with bus_at(server.url) as other, same_state(bus, other):
            assert await contents(await other.register("a")) == list(range(len(junk)))


async def test_a_log_of_another_version_is_refused(server: NATS) -> None:
    other_version = msgspec.msgpack.encode([2, "writer", "what comes later"])
    async with bus_at(server.url) as bus, jetstream(server.url) as js:
        mailbox = await bus.register("a")
        waiting = asyncio.create_task(mailbox.receive(timeout=40))
        await js.publish(log_of().steps, other_version)
        await says("version 2", bus, mailbox)
        with pytest.raises(StoreError, match="version 2"):
            await within(1, bus.agents()) and await bus.agents()
        with pytest.raises(ConfigurationError, match="version 2"):
            await bus_at(server.url).register("a")
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_what_is_sent_again_takes_effect_once(server: NATS) -> None:
    async with bus_at(server.url) as bus, jetstream(server.url) as js:
        mailbox = await bus.register("a")
        for number in range(5):
            await mailbox.send("a", number)
        async with await claimed(mailbox):
            pass
        before = await store_of(bus).browse(Query())
        info = await js.stream_info(log_of().log)
        for seq in range(1, info.state.last_seq + 1):
            message = await js.get_msg(log_of().log, seq)
            await js.publish(log_of().steps, message.data or b"")
        assert await store_of(bus).browse(Query()) == before
        assert await contents(mailbox) == [1, 2, 3, 4]


# -- groups in parts ---------------------------------------------------------------------


async def sending_much(bus: MessageBus, name: str, number: int) -> None:
    """In another process: sends large messages, and says so after each."""
    mailbox = await bus.register(name)
    for index in range(number):
        await mailbox.send(name, "y" * 300_000)
        say(index)


async def test_large_messages_of_many_processes_pass_in_parts(small: NATS) -> None:
    sizes = cycle([0, 100, 70_000, 1_000_000, 200_000])
    senders, consumers = bus_at(small.url), bus_at(small.url)
    async with elsewhere(small.url, sending_much, "eve", 1000) as dies, senders, consumers:
        assert dies is not None
        writer = secrets.token_hex(8)
        async with (
            jetstream(small.url) as js,
            traffic(
                senders, consumers, consumer_url=small.url, padding=lambda: "x" * next(sizes)
            ) as seen,
        ):
            await more(seen.accepted, 10)
            await dies.line()
            dies.kill()  # perhaps between two parts
            half = steps.parts(writer, 1, None, b"z" * 100_000, 65_536)[0]
            await js.publish(log_of().steps, half)  # surely
            await more(seen.accepted, 10)
            await more(seen.handled, 10)
            small.kill()
            await asyncio.to_thread(small.start)
            await more(seen.accepted, 10)
    assert not seen.failures
    assert not repeated(seen.handled)


async def test_parts_that_come_late_do_not_disturb_the_group_after_them(small: NATS) -> None:
    async with bus_at(small.url, patience=1.0) as bus, jetstream(small.url) as js:
        mailbox = await bus.register("a")
        lane = link_of(bus).lane
        old = steps.parts(lane.writer, lane._number + 1, None, b"o" * 100_000, 65_536)
        lane._number += 1  # as if it had been given up
        client = link_of(bus)._session.client
        publish = client.publish
        sent = []

        async def between(subject: str, data: bytes = b"", **options: Any) -> None:
            await publish(subject, data, **options)
            if subject == log_of().steps and not sent:
                sent.append(data)
                await client.flush()  # else it might come after what comes next
                await js.publish(log_of().steps, old[0])

        client.publish = between
        await mailbox.send("a", "x" * 200_000)
        assert sent
        assert len(await contents(mailbox)) == 1


async def test_the_clock_of_the_server_is_set_back(server: NATS, caplog: Any) -> None:
    """Who waits for a moment does not write until it comes."""
    caplog.set_level(logging.DEBUG)
    async with bus_at(server.url) as bus, jetstream(server.url) as js:
        mailbox = await bus.register("a")
        await mailbox.send("a", 1, delay=1.0)
        link_of(bus)._rounds._ahead += 30.0  # it was so much later
        before = (await js.stream_info(log_of().log)).state.last_seq
        began = time.monotonic()
        assert await mailbox.receive(timeout=10) is not None
        assert 0.5 < time.monotonic() - began < 5
        written = (await js.stream_info(log_of().log)).state.last_seq - before
        assert written < 12
        await until(lambda: not link_of(bus).lane.busy, "all is answered")
