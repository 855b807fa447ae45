"""Agents on two hosts: how mail passes between them, and what a cut between a host and the server
means. A host is a network namespace, joined to the server's by a pair of virtual interfaces."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from afk.messaging import AgentMessage, Delivery, MessageBus, MessagingError, StoreError, connect
from afk.messaging.testing.processes import Process, hear, say
from afk.messaging.testing.servers import Server, find
from afk.messaging.testing.steps import until
from proof.parts.network import hosts as hosts_of

LEASE = 1.0
CHILD = "from afk.messaging.testing.processes import main; main()"


class Host(hosts_of.Host):
    """A host of its own, with one wire to the server."""

    port = 0

    def __repr__(self) -> str:
        return self.name

    def url(self, options: str = "") -> str:
        """The server, as it is reached from this host."""
        return f"redis://{self.there}:{self.port}{options}"

    def cut(self) -> None:
        """From now on every packet is lost, both ways, and nobody is told."""
        self.drop(out="drop", back="drop")

    @asynccontextmanager
    async def run(self, work: Callable[..., Any], *args: Any, options: str = "") -> Any:
        """A process on this host that does `work(bus, *args)`; gone when the block is left."""
        target = [Path(__file__).stem, work.__name__, self.url(options), json.dumps(args)]
        path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        pipe = asyncio.subprocess.PIPE
        started = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", self.name, sys.executable, "-c", CHILD, *target),
            stdin=pipe,
            stdout=pipe,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        )
        process = Process(started)
        try:
            yield process
        finally:
            process.kill()
            await started.communicate()


class Hosts:
    """Two hosts, and the server between them."""

    def __init__(self, a: Host, b: Host, server: Server) -> None:
        self.a, self.b, self.server = a, b, server

    @asynccontextmanager
    async def bus(self) -> AsyncIterator[MessageBus]:
        """A bus beside the server, on a namespace that holds nothing."""
        self.server.call("FLUSHALL")
        async with connect(self.server.url) as bus:
            yield bus


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    if why := hosts_of.lacks():
        if "CI" in os.environ:
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("hosts")
    (there, here), (beyond, far) = itertools.islice(hosts_of.free_pairs(), 2)
    with (
        Host(90, here, there) as a,  # those of the proof are numbered from 0
        Host(91, far, beyond) as b,
        Server(find("redis"), folder, bind=("127.0.0.1", there, beyond)) as server,
    ):
        a.port = b.port = server.port
        yield Hosts(a, b, server)


@asynccontextmanager
async def cut(host: Host) -> AsyncIterator[None]:
    host.cut()
    try:
        yield
    finally:
        host.heal()


async def heard(process: Process, kind: str) -> Any:
    """The next thing of this kind that it says, whatever else it says before."""
    while True:
        said, value = await process.line()
        if said == kind:
            return value


# -- what the processes do ---------------------------------------------------------------


class Speaks(logging.Handler):
    """Says what the library logs."""

    def emit(self, record: logging.LogRecord) -> None:
        say(["log", record.getMessage()])


async def answers(bus: MessageBus) -> None:
    async def handle(delivery: Delivery[AgentMessage]) -> Any:
        say(["handled", delivery.message.content])
        return f"re: {delivery.message.content}"

    mailbox = await bus.register("bob")
    say(["ready", None])
    await mailbox.serve(handle)


async def asks(bus: MessageBus) -> None:
    mailbox = await bus.register("ada")
    await mailbox.send("bob", "mail")
    answer = await mailbox.request("bob", "question", timeout=10)
    say(["answer", answer.content])


async def serves(bus: MessageBus) -> None:
    """Works on a message called "slow" until it is told to go on."""
    logging.getLogger("afk.messaging").addHandler(Speaks())

    async def handle(delivery: Delivery[AgentMessage]) -> None:
        content = delivery.message.content
        say(["began", [content, delivery.attempt]])
        if content == "slow" and delivery.attempt == 1:
            await asyncio.to_thread(hear)
        await delivery.send("effects", [content, delivery.attempt])
        say(["ended", [content, delivery.attempt]])

    mailbox = await bus.register("work")
    say(["ready", None])
    await mailbox.serve(handle, lease=LEASE)


async def claims(bus: MessageBus) -> None:
    """Claims a message, and settles it when it is told to; then the next."""
    mailbox = await bus.register("work")
    say(["ready", None])
    async for delivery in mailbox.deliveries(lease=LEASE):
        content = delivery.message.content
        say(["began", [content, delivery.attempt]])
        if content == "slow":
            await asyncio.to_thread(hear)
        await delivery.send("effects", [content, delivery.attempt])
        while True:
            try:
                await delivery.ack()
            except StoreError:
                continue
            except MessagingError as error:
                say(["refused", type(error).__name__])
            else:
                say(["ended", [content, delivery.attempt]])
            break


async def sends(bus: MessageBus) -> None:
    """Sends when it is told to, and again with the key of what failed."""
    mailbox = await bus.register("ada")
    say(["ready", None])
    await asyncio.to_thread(hear)
    started = time.monotonic()
    key = "k"
    try:
        await mailbox.send("bob", "once", idempotency_key=key)
    except StoreError as error:
        key = error.key or ""
        say(["failed", time.monotonic() - started])
    else:
        say(["sent", None])
    await asyncio.to_thread(hear)
    while True:
        with suppress(StoreError):
            receipt = await mailbox.send("bob", "once", idempotency_key=key)
            say(["repeated", receipt.id])
            return


async def claims_in_vain(bus: MessageBus) -> None:
    """Claims, when it is told to, and gives up."""
    mailbox = await bus.register("bob")
    say(["ready", None])
    await asyncio.to_thread(hear)
    started = time.monotonic()
    try:
        await mailbox.claim()
    except StoreError:
        say(["failed", time.monotonic() - started])
    await asyncio.to_thread(hear)


async def waits(bus: MessageBus) -> None:
    """Calls with a deadline, each time it is told to; how long they took, and what they gave."""
    mailbox = await bus.register("bob")
    say(["ready", None])
    await asyncio.to_thread(hear)
    for call in (
        lambda: mailbox.receive(timeout=1),
        lambda: mailbox.claim(timeout=1),
        lambda: mailbox.request("ada", "?", timeout=1),
    ):
        started = time.monotonic()
        try:
            result = await call()
            what = "nothing" if result is None else "something"
        except MessagingError as error:
            what = type(error).__name__
        say(["waited", [time.monotonic() - started, what]])
    await asyncio.to_thread(hear)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with suppress(StoreError):
            message = await mailbox.receive(timeout=1)
            if message is not None:
                say(["received", message.content])
                return


# -- the tests ---------------------------------------------------------------------------


async def test_mail_and_a_request_pass_from_host_to_host(hosts: Hosts) -> None:
    async with hosts.bus(), hosts.a.run(answers) as bob:
        await heard(bob, "ready")
        async with hosts.b.run(asks) as ada:
            assert await heard(ada, "answer") == "re: question"
            assert await ada.wait() == 0
        assert [await heard(bob, "handled") for _ in range(2)] == ["mail", "question"]


async def effects(bus: MessageBus) -> list[Any]:
    return [message.content for message in await (await bus.register("effects")).peek()]


@pytest.mark.parametrize(
    ("finishes", "options"), [("during the cut", "?patience=1"), ("after the cut", "")]
)
async def test_what_a_host_serves_is_taken_over_while_it_is_cut_off(
    hosts: Hosts, finishes: str, options: str
) -> None:
    async with hosts.bus() as bus, hosts.b.run(serves, options=options) as b:
        await bus.register("effects")
        sender = await bus.register("sender")
        await heard(b, "ready")
        slow = await sender.send("work", "slow")
        assert await heard(b, "began") == ["slow", 1]
        assert not await settled_within(slow, 2 * LEASE)  # it is renewed while packets flow
        async with hosts.a.run(serves) as a:
            await heard(a, "ready")
            async with cut(hosts.b):
                assert await heard(a, "ended") == ["slow", 2]
                assert await slow.settled(timeout=5) == "done"
                if finishes == "during the cut":
                    await b.tell()
                    assert await heard(b, "ended") == ["slow", 1]
        mended = time.monotonic()
        if finishes == "after the cut":
            await b.tell()
        assert "lease" in await logged(b, "not settled")
        new = await sender.send("work", "new")
        assert await heard(b, "ended") == ["new", 1]
        assert await new.settled(timeout=5) == "done"
        assert time.monotonic() - mended < 10
        assert await effects(bus) == [["slow", 2], ["new", 1]]
        assert (await bus.stats())["work"].dead == 0


async def settled_within(receipt: Any, seconds: float) -> bool:
    try:
        await receipt.settled(timeout=seconds)
    except TimeoutError:
        return False
    return True


async def logged(process: Process, words: str) -> str:
    while words not in (text := await heard(process, "log")):
        pass
    return str(text)


async def test_a_bare_claim_of_a_host_that_is_cut_off_is_taken_over(hosts: Hosts) -> None:
    async with hosts.bus() as bus, hosts.b.run(claims) as b:
        await bus.register("effects")
        sender = await bus.register("sender")
        await heard(b, "ready")
        slow = await sender.send("work", "slow")
        assert await heard(b, "began") == ["slow", 1]
        async with hosts.a.run(serves) as a:
            await heard(a, "ready")
            async with cut(hosts.b):
                assert await heard(a, "ended") == ["slow", 2]
                assert await slow.settled(timeout=5) == "done"
        mended = time.monotonic()
        await b.tell()
        assert await heard(b, "refused") == "LeaseLostError"
        await sender.send("work", "new")
        assert await heard(b, "ended") == ["new", 1]
        assert time.monotonic() - mended < 10
        assert await effects(bus) == [["slow", 2], ["new", 1]]


async def test_a_sender_that_was_cut_off_repeats_with_its_key(hosts: Hosts) -> None:
    async with hosts.bus() as bus, hosts.b.run(sends, options="?patience=1") as ada:
        bob = await bus.register("bob")
        await heard(ada, "ready")
        async with cut(hosts.b):
            await ada.tell()
            assert await heard(ada, "failed") < 2
        await ada.tell()
        first = await heard(ada, "repeated")
        assert await ada.wait() == 0
        assert [message.id for message in await bob.peek()] == [first]
        await until(lambda: not unsent(hosts.b), "what was sent in vain has arrived too", 10)
        assert [message.id for message in await bob.peek()] == [first]


def unsent(host: Host) -> list[str]:
    """Connections that nobody holds any more, and whose last words the system still sends."""
    lines = host.tell("ss", "-Htn", "state", "all").splitlines()
    return [line for line in lines if line.startswith(("FIN-WAIT-1", "LAST-ACK", "CLOSING"))]


async def test_a_claim_that_failed_takes_nothing_once_packets_flow(hosts: Hosts) -> None:
    async with hosts.bus() as bus, hosts.b.run(claims_in_vain, options="?patience=0.5") as b:
        sender, bob = await bus.register("ada"), await bus.register("bob")
        await heard(b, "ready")
        async with cut(hosts.b):
            await b.tell()
            assert await heard(b, "failed") < 1.5
            await sender.send("bob", "meanwhile")
        await until(lambda: not unsent(hosts.b), "what was asked in vain has arrived too", 10)
        assert await bob.message_count() == 1


async def test_calls_with_a_deadline_end_on_a_host_that_is_cut_off(hosts: Hosts) -> None:
    async with hosts.bus() as bus, hosts.b.run(waits) as b:
        sender = await bus.register("ada")
        await heard(b, "ready")
        async with cut(hosts.b):
            await b.tell()
            for _ in range(3):
                took, what = await heard(b, "waited")
                assert took < 2
                assert what in ("nothing", "StoreError", "RequestTimeoutError")
            await sender.send("bob", "meanwhile")
        mended = time.monotonic()
        await b.tell()
        assert await heard(b, "received") == "meanwhile"
        assert time.monotonic() - mended < 10
