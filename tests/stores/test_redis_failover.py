"""What a failover means for who sends and who serves: the primary dies, freezes, or steps down."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio.sentinel
import redis.sentinel

from afk.messaging import (
    AgentMailbox,
    AgentMessage,
    Delivery,
    MessageBus,
    RedisMessageBus,
    StoreError,
    connect,
)
from afk.messaging.testing.servers import CommandError, Sentinels, Server, find
from afk.messaging.testing.steps import serving, until

WITHIN = 10.0
"""Seconds after a primary's end within which everyone goes on with the new one."""


def url_of(sentinels: Sentinels, options: str = "") -> str:
    hosts = ",".join(f"{host}:{port}" for host, port in sentinels.sentinels)
    return f"redis+sentinel://{hosts}/{sentinels.service}{options}"


def calls_of(server: Server) -> set[str]:
    """Of what clients of ours do, what was done on the server since it started; what a replica
    takes from its primary counts too, but for the waits."""
    done = server.call("INFO", "commandstats")
    return {name for name in ("evalsha", "eval", "blpop") if f"cmdstat_{name}:" in done}


async def replicated(sentinels: Sentinels) -> None:
    """Wait until every replica has what the primary has written so far."""
    written = int(sentinels.master().info()["master_repl_offset"])

    def caught_up() -> bool:
        return all(
            int(replica.info().get("slave_repl_offset", -1)) >= written
            for replica in sentinels.replicas()
        )

    await until(caught_up, "the replica has caught up")


async def fail_over(sentinels: Sentinels) -> Server:
    """Swap the primary and the replica, both of which stay up."""
    old = sentinels.master()

    def ordered() -> bool:
        with suppress(CommandError):  # no good replica yet: the sentinels look once a second
            sentinels.watchers[0].call("SENTINEL", "FAILOVER", sentinels.service)
            return True
        return False

    await until(ordered, "a failover is under way")
    return await asyncio.to_thread(sentinels.until_moved, old)


@asynccontextmanager
async def clients(sentinels: Sentinels) -> AsyncIterator[list[Any]]:
    """A client of the service for each of redis-py's two faces."""
    plain = redis.sentinel.Sentinel(sentinels.sentinels)
    awaited = redis.asyncio.sentinel.Sentinel(sentinels.sentinels)
    both = [awaited.master_for(sentinels.service), plain.master_for(sentinels.service)]
    try:
        yield both
    finally:
        await both[0].aclose()
        both[1].close()


async def echo(delivery: Delivery[AgentMessage]) -> Any:
    return delivery.message.content


class Traffic:
    """Senders who repeat what failed, with its key, until they are told to stop."""

    def __init__(self) -> None:
        self.accepted: dict[str, bool] = {}
        """By key: whether the new primary had taken over by then."""
        self.repeated: set[str] = set()
        self.handled: Counter[str] = Counter()
        self.moved = False
        self._stopped = False

    async def handle(self, delivery: Delivery[AgentMessage]) -> None:
        self.handled[delivery.message.content] += 1

    async def send_on(self, mailbox: AgentMailbox, to: str) -> None:
        for number in count():
            if self._stopped:
                return
            await self._send(mailbox, to, f"{mailbox.name}-{number}")
            await asyncio.sleep(0.01)

    async def _send(self, mailbox: AgentMailbox, to: str, key: str) -> None:
        while True:
            try:
                await mailbox.send(to, key, idempotency_key=key)
            except StoreError as error:
                key = error.key or ""
                self.repeated.add(key)
            else:
                self.accepted[key] = self.moved
                return

    def stop(self) -> None:
        self._stopped = True

    def later(self) -> list[str]:
        """What the new primary accepted."""
        return [key for key, after in self.accepted.items() if after]


async def test_traffic_goes_on_by_url_and_by_client(sentinels: Sentinels) -> None:
    async with clients(sentinels) as both:
        buses = [connect(url_of(sentinels)), *map(RedisMessageBus, both)]
        names = ["url", "awaited", "plain"]
        boxes = [await bus.register(name) for bus, name in zip(buses, names, strict=True)]
        old = sentinels.master()
        async with (
            buses[0],
            buses[1],
            buses[2],
            serving(boxes[0], echo),
            serving(boxes[1], echo),
            serving(boxes[2], echo),
        ):
            waiting = await buses[0].register("waiting")
            await buses[0].register("probes")
            await everyone_answers(boxes, "before")
            await replicated(sentinels)
            new = await fail_over(sentinels)
            moved = time.monotonic()
            assert new is not old
            # The old one takes writes until the sentinels make a replica of it, ten seconds later.
            for box in boxes:
                await until(partial(has_moved, box, new), f"{box.name} talks to the new one", 3)
            accepted = [
                await sent(box, "waiting", str(number)) for number in range(9) for box in boxes
            ]
            await everyone_answers(boxes, "after")
            assert time.monotonic() - moved < WITHIN
            assert new.call("ZCARD", "afk:{afk}:open:waiting") == len(accepted)
            old.call("REPLICAOF", new.host, new.port)  # what connections it has are kept
            old.call("CONFIG", "RESETSTAT")
            await everyone_answers(boxes, "later")
            assert {await received(waiting) for _ in accepted} == set(accepted)
            assert await received(waiting) is None
            assert "blpop" not in calls_of(old)


async def sent(mailbox: AgentMailbox, to: str, text: str) -> str:
    """A message that is sent until it is accepted."""
    key = f"{mailbox.name}-{text}"
    while True:
        with suppress(StoreError):
            await mailbox.send(to, key, idempotency_key=key)
            return key


async def has_moved(mailbox: AgentMailbox, primary: Server) -> bool:
    """Whether what it sends now comes to this server."""
    key = await sent(mailbox, "probes", str(time.monotonic_ns()))
    name = f"afk:{{afk}}:key:probes|{mailbox.name}|{key}"
    return bool(primary.call("EXISTS", name) == 1)


async def everyone_answers(boxes: list[AgentMailbox], text: str) -> None:
    async def asked(sender: AgentMailbox, to: str) -> None:
        key = f"{sender.name}-{to}-{text}"
        while True:
            with suppress(StoreError):
                answer = await sender.request(to, key, timeout=WITHIN, idempotency_key=key)
                assert answer.content == key
                return

    await asyncio.gather(*(asked(sender, to.name) for sender in boxes for to in boxes))


async def test_the_primary_dies_under_traffic(sentinels: Sentinels) -> None:
    url = url_of(sentinels)
    traffic, finished, idle = Traffic(), Traffic(), Traffic()
    async with connect(url) as here, connect(url) as there:
        senders = [await here.register(name) for name in ("ada", "bob", "cyd")]
        busy, settled, waiting, quiet = [
            await there.register(name) for name in ("busy", "settled", "waiting", "quiet")
        ]
        for number in range(20):
            await senders[0].send("waiting", number)
            await senders[0].send("settled", str(number))
        async with (
            serving(busy, traffic.handle, concurrency=4, lease=2),
            serving(busy, traffic.handle, lease=2),
            serving(settled, finished.handle, lease=2),
            serving(quiet, idle.handle),
        ):
            await until(lambda: finished.handled.total() == 20, "the first are handled")
            await until_settled(here, "settled")
            await replicated(sentinels)
            sending = [
                asyncio.create_task(traffic.send_on(sender, "busy"))
                for sender in (senders[0], senders[1], await there.register("dan"))
            ]
            await until(lambda: traffic.handled.total() > 100, "the traffic flows")
            old = sentinels.master()
            old.kill()
            died = time.monotonic()
            new = await asyncio.to_thread(sentinels.until_moved, old)
            traffic.moved = True

            def flows() -> bool:
                return sum(traffic.handled[key] for key in traffic.later()) > 100

            await until(flows, "traffic with the new primary", WITHIN)
            assert all(traffic.handled[f"{name}-0"] for name in ("ada", "bob", "dan"))
            await senders[2].send("quiet", "woken")
            await until(lambda: idle.handled["woken"] == 1, "an idle consumer is woken", 5)
            assert time.monotonic() - died < WITHIN

            await the_old_one_is_left_alone(old, new, sentinels)
            before = traffic.handled.total()
            await until(lambda: traffic.handled.total() > before + 50, "it flows still", 5)
            traffic.stop()
            await asyncio.gather(*sending)
            await until_settled(there, "busy", "settled", "quiet")
        assert [await received(waiting) for _ in range(21)] == [*range(20), None]
        assert set(finished.handled.values()) == {1}

    assert traffic.repeated <= set(traffic.accepted)
    later = traffic.later()
    assert [key for key in later if traffic.handled[key] == 0] == []
    once = [key for key in later if key not in traffic.repeated]
    assert [key for key in once if traffic.handled[key] != 1] == []
    lost = [key for key in traffic.accepted if not traffic.handled[key]]
    print(
        f"accepted {len(traffic.accepted)}, of them {len(later)} after the failover;"
        f" repeated {len(traffic.repeated)}; lost by asynchronous replication {len(lost)};"
        f" handled twice {sum(number > 1 for number in traffic.handled.values())}"
    )


async def the_old_one_is_left_alone(old: Server, new: Server, sentinels: Sentinels) -> None:
    """It comes back as a primary of its own, until the sentinels make a replica of it."""
    old.start()
    asked: set[str] = set()

    def follows() -> bool:
        with suppress(ConnectionError):  # the sentinels close its connections then
            if old.call("ROLE")[0] == "slave":
                return True
            asked.update(calls_of(old))
        return False

    await until(follows, "the old primary follows the new one", 30)
    assert asked == set()
    assert "blpop" not in calls_of(old)
    assert sentinels.master() is new
    ports = {line.split("laddr=")[1].split()[0].split(":")[1] for line in users_of(new)}
    assert ports == {str(new.port)}


def users_of(server: Server) -> list[str]:
    return [line for line in server.call("CLIENT", "LIST").splitlines() if "cmd=blpop" in line]


async def until_settled(bus: MessageBus, *names: str) -> None:
    async def empty() -> bool:
        stats = await bus.stats()
        return not any(
            stats[name].pending["all"] + stats[name].leased + stats[name].scheduled
            for name in names
        )

    await until(empty, f"all mail of {names} is settled")


async def received(mailbox: AgentMailbox) -> Any:
    message = await mailbox.receive(timeout=0)
    return None if message is None else message.content


async def test_the_primary_freezes(sentinels: Sentinels) -> None:
    """Nobody is told: connections stay open, and nothing is answered any more."""
    traffic = Traffic()
    async with (
        connect(url_of(sentinels, "?patience=3")) as here,
        connect(url_of(sentinels, "?patience=3")) as there,
    ):
        sender, quiet = await here.register("ada"), await there.register("quiet")
        async with serving(quiet, traffic.handle):
            await sender.send("quiet", "before")
            await until(lambda: traffic.handled["before"] == 1, "mail flows")
            await replicated(sentinels)
            with frozen(sentinels):
                old = sentinels.master()
                with pytest.raises(StoreError, match="unknown") as failure:
                    await sender.send("quiet", "during", idempotency_key="k")
                await asyncio.to_thread(sentinels.until_moved, old)
                await sender.send("quiet", "during", idempotency_key=failure.value.key)
                await until(lambda: traffic.handled["during"] == 1, "mail flows again", WITHIN)
        assert set(traffic.handled.values()) == {1}


@contextmanager
def frozen(sentinels: Sentinels) -> Iterator[Server]:
    old = sentinels.master()
    old.pause()
    try:
        yield old
    finally:
        old.resume()


async def goes_on(call: Callable[[], Any], what: str) -> None:
    async def tried() -> bool:
        with suppress(StoreError):
            await call()
            return True
        return False

    await until(tried, what, WITHIN)


async def test_nothing_ties_a_bus_to_a_frozen_primary(sentinels: Sentinels) -> None:
    async with (
        connect(url_of(sentinels, "?patience=0.9")) as impatient,
        connect(url_of(sentinels, "?patience=2")) as cancelled,
        connect(url_of(sentinels, "?patience=2")) as loaded,
    ):
        boxes = [await bus.register("a") for bus in (impatient, cancelled, loaded)]
        await replicated(sentinels)
        with frozen(sentinels) as old:
            with pytest.raises(StoreError, match="unknown"):
                await boxes[0].send("a", 1)  # connects again before there is another primary
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await boxes[1].claim()  # is to be undone before anything else is sent
            large = [
                boxes[2].send("a", "x" * 900_000) for _ in range(12)
            ]  # more than a socket takes
            failures = await asyncio.gather(*large, return_exceptions=True)
            assert {type(failure) for failure in failures} == {StoreError}
            await asyncio.to_thread(sentinels.until_moved, old)
            whats = ("an impatient bus", "a bus with a cancelled claim", "a bus with much to send")
            sends = [partial(box.send, "a", 2, idempotency_key="k") for box in boxes]
            await asyncio.gather(
                *(goes_on(s, f"{w} goes on") for s, w in zip(sends, whats, strict=True))
            )


async def test_a_server_that_became_a_replica_is_waited_for(tmp_path: Path) -> None:
    program, at_once = find("redis"), {"repl_diskless_sync_delay": 0}
    with (
        Server(program, tmp_path / "a", **at_once) as one,
        Server(program, tmp_path / "b", **at_once) as two,
    ):
        async with connect(f"{one.url}?patience=1") as bus:
            mailbox = await bus.register("a")
            await mailbox.send("a", 1)
            two.call("REPLICAOF", one.host, one.port)
            await until(lambda: two.info()["master_link_status"] == "up", "it follows")
            await until(
                lambda: two.info()["slave_repl_offset"] == one.info()["master_repl_offset"],
                "it has everything",
            )
            two.call("REPLICAOF", "NO", "ONE")
            one.call("REPLICAOF", two.host, two.port)  # and no connection is closed
            with pytest.raises(StoreError, match="read-only replica"):
                await mailbox.send("a", 2)
            with pytest.raises(StoreError, match="read-only replica"):
                await mailbox.claim()
            one.call("REPLICAOF", "NO", "ONE")
            await goes_on(
                lambda: mailbox.send("a", 3, idempotency_key="k"), "it is a primary again"
            )
            assert [await received(mailbox) for _ in range(3)] == [1, 3, None]
