"""A namespace in a Cluster: found from any node, moved while it is in use, gone and back."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from typing import Any

import pytest
import redis
import redis.asyncio

from afk.messaging import (
    AgentMailbox,
    AgentMessage,
    Delivery,
    MessageBus,
    RedisMessageBus,
    StoreError,
    connect,
)
from afk.messaging.testing.servers import Cluster, Kind, Server, find, free_port
from afk.messaging.testing.steps import claimed, serving, until

BEING_MOVED = "slot is being moved"
LINES = {
    "mail": "ready",
    "back": "ready",
    "behind": "behind",
    "due": "due",
    "later": "later",
    "open": "open",
    "accepted": "accepted",
    "dead": "dead",
}
"""The kinds of keys that name messages, and what a message in them is."""


class Place:
    """A new namespace, and the slot all its keys are in."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.prefix = f"afk:{{{name}}}:"
        self.slot = cluster.slot(self.prefix)

    @property
    def owner(self) -> Server:
        return self.cluster.owner(self.slot)

    @property
    def others(self) -> list[Server]:
        owner = self.owner
        return [node for node in self.cluster.nodes if node is not owner]

    def url(self, *nodes: Server, patience: float = 10.0) -> str:
        """By these nodes; by default one that is not the owner."""
        given = nodes or (self.others[0],)
        scheme = "redis" if len(given) == 1 else "redis+cluster"
        hosts = ",".join(f"{node.host}:{node.port}" for node in given)
        return f"{scheme}://{hosts}?namespace={self.name}&patience={patience}"

    def keys(self, node: Server) -> list[str]:
        number = node.call("CLUSTER", "COUNTKEYSINSLOT", self.slot)
        return list(node.call("CLUSTER", "GETKEYSINSLOT", self.slot, number))

    def migrate(self, to: Server | None = None) -> None:
        self.cluster.migrate(self.slot, to or self.others[0])


@pytest.fixture
def place(cluster: Cluster) -> Iterator[Place]:
    with place_in(cluster, cluster.nodes[0]) as place:
        yield place


@contextmanager
def place_in(cluster: Cluster, node: Server) -> Iterator[Place]:
    """A namespace that is at home at this node; the cluster is left as it was found."""
    names = (f"n{secrets.token_hex(4)}" for _ in count())
    place = next(place for place in (Place(cluster, name) for name in names) if place.owner is node)
    try:
        yield place
    finally:
        for each in cluster.nodes:
            if not each.running:
                each.start()
        cluster.until_ok()
        if place.owner is not node:
            place.migrate(node)
        if keys := place.keys(node):
            node.call("DEL", *keys)


async def received(mailbox: AgentMailbox, timeout: float = 0) -> Any:
    message = await mailbox.receive(timeout)
    return None if message is None else message.content


async def exchange(bus: MessageBus, text: str) -> None:
    mailbox = await bus.register("a")
    await mailbox.send("a", text)
    assert await received(mailbox, 5) == text


# -- finding it --------------------------------------------------------------------------


async def test_any_node_leads_to_the_namespace(place: Place) -> None:
    for node in place.cluster.nodes:
        async with connect(place.url(node)) as bus:
            await exchange(bus, f"by {node}")
    async with connect(place.url(*place.cluster.nodes)) as bus:
        await exchange(bus, "by all")


async def test_a_dead_start_node_is_passed_over(place: Place) -> None:
    dead = f"127.0.0.1:{free_port()}"
    for node in (place.owner, place.others[0]):
        alive = f"{node.host}:{node.port}"
        for hosts in (f"{dead},{alive}", f"{alive},{dead}"):
            async with connect(f"redis+cluster://{hosts}?namespace={place.name}") as bus:
                await exchange(bus, hosts)


async def test_a_client_of_the_cluster_leads_to_it(place: Place) -> None:
    start = place.others[0]
    awaited = redis.asyncio.RedisCluster(host=start.host, port=start.port)
    plain = redis.RedisCluster(host=start.host, port=start.port)
    try:
        for client in (awaited, plain):
            async with RedisMessageBus(client, namespace=place.name) as bus:
                await exchange(bus, type(client).__module__)
    finally:
        await awaited.aclose()
        plain.close()


async def test_the_way_is_found_again_when_the_start_node_is_down(cluster: Cluster) -> None:
    """Who has once been led to the namespace need not be led again."""
    with place_in(cluster, cluster.nodes[1]) as place, partial_coverage(cluster):
        start = cluster.nodes[0]
        async with connect(place.url(start, patience=3)) as bus:
            await exchange(bus, "before")
            await asyncio.to_thread(start.kill)
            place.owner.call("CLIENT", "KILL", "TYPE", "normal")
            await goes_on(lambda: exchange(bus, "after"))


@contextmanager
def partial_coverage(cluster: Cluster) -> Iterator[None]:
    """The slots of nodes that are up are served although others are not."""
    for node in cluster.nodes:
        node.call("CONFIG", "SET", "cluster-require-full-coverage", "no")
    try:
        yield
    finally:
        for node in cluster.nodes:
            if not node.running:
                node.start()
            node.call("CONFIG", "SET", "cluster-require-full-coverage", "yes")


async def goes_on(call: Callable[[], Any], within: float = 10.0) -> None:
    async def tried() -> bool:
        with suppress(StoreError):
            await call()
            return True
        return False

    await until(tried, "a call that succeeds", within)


# -- moving it ---------------------------------------------------------------------------


async def test_a_slot_moves_between_calls(place: Place) -> None:
    async with connect(place.url()) as bus:
        mailbox = await bus.register("a")
        for number, node in enumerate((*place.others, place.owner)):
            await mailbox.send("a", number)
            await asyncio.to_thread(place.migrate, node)
            assert await received(mailbox) == number
            assert (await bus.stats())["a"].pending["all"] == 0
        assert len(await bus.messages(state="done")) == 3
        consistent(place)


async def test_who_waits_for_mail_goes_on_after_a_move(place: Place) -> None:
    async with connect(place.url()) as here, connect(place.url()) as there:
        sender, receiver = await here.register("a"), await there.register("b")
        waiting = asyncio.create_task(receiver.receive(timeout=20))
        request = asyncio.create_task(sender.request("b", "?", timeout=20))
        await until(waiting.done, "the request has come")
        question = waiting.result()
        assert question is not None
        waiting = asyncio.create_task(receiver.receive(timeout=20))
        await until(lambda: bool(users_of(place.owner)), "they wait at the old owner")
        await asyncio.to_thread(place.migrate)
        started = time.monotonic()
        await receiver.send("a", "mail")
        await sender.send("b", "news")
        message = await waiting
        assert message is not None
        assert message.content == "news"
        assert time.monotonic() - started < 10
        request.cancel()
        await asyncio.wait([request])


def users_of(node: Server) -> list[str]:
    return [line for line in node.call("CLIENT", "LIST").splitlines() if "cmd=blpop" in line]


def by_keys(place: Place, target: Server) -> None:
    """As a resharding tool does it: key by key, while the slot is in between."""
    place.cluster.begin_migration(place.slot, target)
    while place.cluster.move_keys(place.slot, target, count=7):
        pass
    place.cluster.end_migration(place.slot, target)


def as_a_whole(place: Place, target: Server) -> None:
    """As Valkey 9 does it by itself."""
    source = place.owner
    to = target.call("CLUSTER", "MYID")
    source.call("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", place.slot, place.slot, "NODE", to)
    end = time.monotonic() + 10
    while any(
        node.call("CLUSTER", "KEYSLOT", "x") and not known(node, place.slot, target)
        for node in place.cluster.nodes
    ):
        assert time.monotonic() < end, source.call("CLUSTER", "GETSLOTMIGRATIONS")
        time.sleep(0.02)


def known(node: Server, slot: int, owner: Server) -> bool:
    slots = node.call("CLUSTER", "SLOTS")
    return any(first <= slot <= last and at[1] == owner.port for first, last, at, *_ in slots)


@pytest.mark.parametrize("move", [by_keys, as_a_whole])
async def test_a_slot_moves_under_traffic(
    place: Place, move: Callable[[Place, Server], None]
) -> None:
    accepted: set[str] = set()
    handled: Counter[str] = Counter()
    stopping = asyncio.Event()

    async def handle(delivery: Delivery[AgentMessage]) -> str:
        handled[delivery.message.content] += 1
        await delivery.send("log", delivery.message.content)
        return "answer"

    async def send_on(mailbox: AgentMailbox) -> None:
        for number in count():
            if stopping.is_set():
                return
            key = f"{mailbox.name}-{number}"
            while key not in accepted:
                with suppress(StoreError):
                    await mailbox.send("busy", key, idempotency_key=key)
                    accepted.add(key)
            await asyncio.sleep(0.002)

    async with connect(place.url()) as here, connect(place.url(*place.cluster.nodes)) as there:
        senders = [await here.register("ada"), await there.register("bob")]
        busy, log = await there.register("busy"), await here.register("log")
        elsewhere = await here.register("busy")
        async with (
            serving(busy, handle, concurrency=3, lease=20),
            serving(elsewhere, handle, lease=20),
        ):
            sending = [asyncio.create_task(send_on(sender)) for sender in senders]
            home, others = place.owner, place.others
            for target in (others[1], others[0], home):
                before = len(accepted)
                await until(lambda before=before: len(accepted) > before + 100, "traffic", 10)
                await asyncio.to_thread(move, place, target)
            await until(lambda: len(accepted) > before + 200, "traffic goes on", 10)
            stopping.set()
            await asyncio.gather(*sending)
            await until(lambda: len(handled) == len(accepted), "all is handled", 10)
            await until(lambda: settled(place, "busy"), "all is settled", 10)
        assert set(handled) == accepted
        assert set(handled.values()) == {1}
        consistent(place)
        assert (await here.stats())["log"].pending["all"] == len(accepted)
        copies = [message.content for message in await log.peek(limit=len(accepted) + 1)]
        assert Counter(copies) == handled


def settled(place: Place, mailbox: str) -> bool:
    return place.owner.call("ZCARD", f"{place.prefix}open:{mailbox}") == 0


# -- half way ----------------------------------------------------------------------------


@pytest.fixture(params=["valkey", "redis"], scope="module")
def kind_of_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    kind: Kind = request.param
    if kind == "valkey":
        yield request.getfixturevalue("cluster")
        return
    with Cluster(find(kind), tmp_path_factory.mktemp("cluster-of-redis")) as cluster:
        yield cluster


@asynccontextmanager
async def half_way(place: Place, number: int, stays: str | None = None) -> AsyncIterator[Server]:
    """The slot is in between, and so many of its keys are there already, without `stays`."""
    source, target = place.owner, place.others[0]
    place.cluster.begin_migration(place.slot, target)
    try:
        keys = sorted(set(place.keys(source)) - {stays})
        secrets.SystemRandom().shuffle(keys)
        if keys[:number]:
            there = (target.host, target.port, "", 0, 5000)
            source.call("MIGRATE", *there, "KEYS", *keys[:number])
        yield source
    finally:
        place.cluster.move_keys(place.slot, target)
        place.cluster.end_migration(place.slot, target)


def snapshot(place: Place) -> dict[str, Any]:
    """Everything the namespace has, wherever it is now, but for who waits."""
    found: dict[str, Any] = {}
    for node in place.cluster.nodes:
        with redis.Redis(host=node.host, port=node.port, single_connection_client=True) as client:
            for key in place.keys(node):
                if ":wake:" not in key:
                    assert key not in found, f"{key} is on two nodes"
                    found[key] = value(client, key)
    return found


READ = {
    b"hash": ("HGETALL",),
    b"string": ("GET",),
    b"set": ("SMEMBERS",),
    b"list": ("LRANGE", 0, -1),
    b"zset": ("ZRANGE", 0, -1),
}


def value(client: redis.Redis, key: str) -> Any:
    def asked(name: str, *args: int) -> Any:
        client.execute_command("ASKING")  # of a node that has the key, and not yet its slot
        return client.execute_command(name, key, *args)

    return asked(*READ[asked("TYPE")])


@pytest.mark.parametrize("guarded_by", ["its first key", "what is never there"])
async def test_nothing_is_done_by_halves(kind_of_cluster: Cluster, guarded_by: str) -> None:
    """A turn that settles and sends at once, with any part of the keys on the other node."""
    with place_in(kind_of_cluster, kind_of_cluster.nodes[0]) as place:
        if guarded_by == "what is never there":
            stays = place.prefix  # then the server has no reason to refuse the script as a whole
            place.owner.call("SET", stays, "there")
        else:
            stays = None
        async with connect(place.url(patience=0.3)) as bus:
            mailbox = await bus.register("a")
            await bus.register("b")
            for number in range(4):
                await mailbox.send("a", number, idempotency_key=f"k{number}")
            whole = len(place.keys(place.owner))
            for number in (1, whole // 2, whole - 2):
                await one_turn_half_way(place, bus, mailbox, number, stays)
                if stays:
                    place.owner.call("SET", stays, "there")
            names = Counter(message.content for message in await mailbox.peek())
            assert set(names.values()) == {1}
            consistent(place)


async def one_turn_half_way(
    place: Place, bus: MessageBus, mailbox: AgentMailbox, moved: int, stays: str | None
) -> None:
    delivery = await claimed(mailbox, lease=30)
    text = f"{delivery.message.content}, {moved} moved"
    await delivery.send("a", text, idempotency_key=text)
    await delivery.send("b", text)
    before = (await bus.stats())["a"]
    async with half_way(place, moved, stays) as source:
        was = snapshot(place)
        calls = (
            delivery.ack(),
            mailbox.send("a", "new", idempotency_key=f"new {moved}"),
            mailbox.claim(),
            delivery.extend(30),
        )
        for failure in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(failure, StoreError)
            assert BEING_MOVED in str(failure)
        assert source.call("PING")
        assert snapshot(place) == was
    assert snapshot(place) == was
    consistent(place)
    await goes_on(bus.stats)
    after = (await bus.stats())["a"]
    assert (after.pending["all"], after.leased) == (before.pending["all"], before.leased)
    await goes_on(delivery.ack)
    assert (await bus.stats())["a"].pending["all"] == before.pending["all"] + 1
    consistent(place)


async def test_calls_wait_until_the_slot_has_arrived(kind_of_cluster: Cluster) -> None:
    with place_in(kind_of_cluster, kind_of_cluster.nodes[0]) as place:
        async with connect(place.url()) as bus, connect(place.url()) as there:
            mailbox, other = await bus.register("a"), await there.register("b")
            await mailbox.send("a", 1)
            delivery = await claimed(mailbox)
            receiving = asyncio.create_task(other.receive(timeout=20))
            async with half_way(place, 3):
                await delivery.send("b", "with the ack")
                calls = [
                    asyncio.create_task(call)
                    for call in (delivery.ack(), mailbox.send("a", 2), mailbox.send("a", 3))
                ]
                joining = asyncio.create_task(joined(place.url()))
                done, _ = await asyncio.wait([*calls, joining, receiving], timeout=1)
                assert not done
            await asyncio.gather(*calls)
            assert await joining == ["a", "b"]
            message = await receiving
            assert message is not None
            assert message.content == "with the ack"
            assert [await received(mailbox) for _ in range(3)] == [2, 3, None]
            consistent(place)


async def joined(url: str) -> list[str]:
    async with connect(url) as bus:
        return await bus.agents()


# -- what must hold of the keys ----------------------------------------------------------


def consistent(place: Place) -> None:
    """Every message is in the lines its state says, once, and in no other; nothing is elsewhere."""
    node = place.owner
    assert [other for other in place.others if place.keys(other)] == []
    assert node.call("CLUSTER", "COUNTKEYSINSLOT", place.slot)
    texts = [key.removeprefix(place.prefix) for key in place.keys(node)]
    messages = {
        text.removeprefix("msg:"): fields(node, place.prefix + text)
        for text in texts
        if text.startswith("msg:")
    }
    lines: dict[str, list[str]] = {}
    for text in texts:
        kind = text.partition(":")[0]
        if kind in LINES:
            lines[text] = members(node, place.prefix + text)
    for message_id, row in messages.items():
        assert row.get("state"), f"a row that was begun and not finished: {row}"
        found = Counter(
            LINES[line.partition(":")[0]]
            for line in lines
            for each in lines[line]
            if each == message_id
        )
        assert found == expected(row), (message_id, row, found)
    known = {each for line in lines.values() for each in line}
    assert known <= set(messages), "a line names what is not there"
    for key in (text for text in texts if text.startswith("key:")):
        assert node.call("GET", place.prefix + key) in messages


def expected(row: dict[str, str]) -> Counter[str]:
    at = {
        "pending": {"open": 1, "ready": 1},
        "blocked": {"open": 1, "behind": 1},
        "scheduled": {"open": 1, "due": 1, "later": 1},
        "leased": {"open": 1, "due": 1},
        "done": {},
        "dead": {"dead": 2},
        "cancelled": {},
    }
    return Counter({"accepted": 1, **at[row["state"]]})


def fields(node: Server, key: str) -> dict[str, str]:
    flat = node.call("HGETALL", key)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def members(node: Server, key: str) -> list[str]:
    if node.call("TYPE", key) == "list":
        return list(node.call("LRANGE", key, 0, -1))
    return list(node.call("ZRANGE", key, 0, -1))


# -- nodes that go and come --------------------------------------------------------------


def written(node: Server) -> bool:
    """Whether the system has all that was accepted: a slow disk delays even that for a while."""
    return node.info()["aof_buffer_length"] == "0"


async def test_the_node_goes_down_and_comes_back(place: Place) -> None:
    async with connect(place.url(*place.cluster.nodes, patience=1)) as bus:
        mailbox = await bus.register("a")
        await mailbox.send("a", 1)
        receiving = asyncio.create_task(received(await bus.register("idle"), 30))
        node = place.owner
        await until(lambda: written(node), "all is in the file")
        await asyncio.to_thread(node.kill)
        for _ in range(3):  # at first nobody has noticed; then the cluster says it is down
            started = time.monotonic()
            with pytest.raises(StoreError) as failure:
                await mailbox.send("a", 2, idempotency_key="k")
            assert failure.value.key == "k"
            assert time.monotonic() - started < 2
        await asyncio.to_thread(node.start)
        await asyncio.to_thread(place.cluster.until_ok)
        await goes_on(lambda: mailbox.send("a", 2, idempotency_key="k"))
        assert [await received(mailbox) for _ in range(3)] == [1, 2, None]
        consistent(place)
        receiving.cancel()
        await asyncio.wait([receiving])


async def test_namespaces_on_two_nodes_do_not_disturb_each_other(cluster: Cluster) -> None:
    with (
        place_in(cluster, cluster.nodes[0]) as lost,
        place_in(cluster, cluster.nodes[1]) as kept,
        partial_coverage(cluster),
    ):
        async with (
            connect(lost.url(*cluster.nodes, patience=1)) as gone,
            connect(kept.url(*cluster.nodes, patience=1)) as there,
        ):
            await exchange(gone, "before")
            await exchange(there, "before")
            async with half_way(lost, 2):
                with pytest.raises(StoreError, match=BEING_MOVED):
                    await exchange(gone, "in between")
                started = time.monotonic()
                await exchange(there, "meanwhile")
                assert time.monotonic() - started < 0.5
            node = lost.owner
            if node is kept.owner:
                await asyncio.to_thread(lost.migrate, cluster.nodes[0])
            node = lost.owner
            await until(lambda: written(node), "all is in the file")
            await asyncio.to_thread(node.kill)
            end = time.monotonic() + 2
            while time.monotonic() < end:
                started = time.monotonic()
                await exchange(there, "meanwhile")
                assert time.monotonic() - started < 1
                with pytest.raises(StoreError):
                    await exchange(gone, "while it is down")
            await asyncio.to_thread(node.start)
            await goes_on(gone.agents)
            assert await gone.agents() == ["a"]
            assert await there.agents() == ["a"]
