"""Three NATS servers, of which one is always gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from afk.messaging import ConfigurationError, MessageBus, MessagingError, StoreError
from afk.messaging.testing.servers import NATS, NATSCluster, find
from afk.messaging.testing.steps import claimed, until

from .over_nats import (
    bus_at,
    jetstream,
    link_of,
    log_of,
    more,
    repeated,
    same_state,
    space,
    traffic,
    within,
)

CHOOSING = 60.0
"""Seconds that servers may take to choose another leader: some ten, on a busy machine thirty."""

pytestmark = pytest.mark.timeout(4 * CHOOSING)  # they may have to choose more than once


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NATSCluster]:
    """A cluster that the tests may damage, and mend."""
    with NATSCluster(find("nats"), tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


async def replicas_of(url: str, namespace: str) -> int:
    async with jetstream(url) as js:
        return (await js.stream_info(log_of(namespace).log)).config.num_replicas or 0


async def test_there_are_three_copies_in_a_cluster_and_one_alone(
    cluster: NATSCluster, nats_server: NATS
) -> None:
    for url, asked, given in (
        (cluster.url, None, 3),
        (cluster.url, 1, 1),
        (nats_server.url, None, 1),
        (nats_server.url, 1, 1),
    ):
        namespace = space()
        async with bus_at(url, namespace, replicas=asked) as bus:
            await bus.register("a")
            assert await replicas_of(url.split(",")[0], namespace) == given
    for url, asked in ((nats_server.url, 3), (cluster.url, 5)):
        with pytest.raises(ConfigurationError, match="replicas"):
            await bus_at(url, space(), replicas=asked).register("a")


def connected_to(bus: MessageBus, cluster: NATSCluster) -> NATS:
    """The node that the bus is connected to."""
    url = link_of(bus)._session.client.connected_url
    return next(node for node in cluster.nodes if node.port == url.port)


async def leader_of(namespace: str, cluster: NATSCluster) -> NATS:
    """The node that leads the log."""
    async with jetstream(cluster.url.split(",")[0]) as js:
        info: Any = await js.stream_info(log_of(namespace).log)
        return next(node for node in cluster.nodes if node.name == info.cluster.leader)


@pytest.mark.parametrize("which", ["the stream's leader", "the client's"])
async def test_the_loss_of_a_node_loses_nothing(cluster: NATSCluster, which: str) -> None:
    namespace = space()
    senders, consumers = (bus_at(cluster.url, namespace, patience=CHOOSING) for _ in range(2))
    url = f"{cluster.url}?namespace={namespace}&patience={CHOOSING}"
    async with (
        senders,
        consumers,
        same_state(senders, consumers),
        traffic(senders, consumers, consumer_url=url, lease=3 * CHOOSING) as seen,
    ):
        await more(seen.accepted)
        node = {
            "the stream's leader": await leader_of(namespace, cluster),
            "the client's": connected_to(senders, cluster),
        }[which]
        node.kill()
        try:
            await more(seen.accepted, patience=CHOOSING)
            await more(seen.handled, patience=CHOOSING)
        finally:
            await asyncio.to_thread(node.start)
        await more(seen.accepted)
        await more(seen.handled)
        await asyncio.to_thread(cluster.until_ok)
    assert not seen.failures
    assert not repeated(seen.handled)


async def test_who_waits_hears_when_a_node_is_gone(cluster: NATSCluster) -> None:
    namespace = space()
    async with (
        bus_at(cluster.url, namespace, patience=CHOOSING) as bus,
        bus_at(cluster.url, namespace, patience=CHOOSING) as other,
    ):
        mailbox, sender = await bus.register("a"), await other.register("b")
        waiting = asyncio.create_task(mailbox.receive(timeout=2 * CHOOSING))
        await asyncio.sleep(0.1)
        node = cluster.leader()
        node.kill()
        try:
            await within(CHOOSING, sender.send("a", "hello"))
            message = await within(CHOOSING, waiting)
            assert message.content == "hello"
        finally:
            await asyncio.to_thread(node.start)
    await asyncio.to_thread(cluster.until_ok)


async def test_a_node_that_is_silent_is_left(cluster: NATSCluster) -> None:
    namespace = space()
    async with bus_at(cluster.url, namespace) as bus:
        mailbox = await bus.register("a")
        await mailbox.send("a", 1)
        delivery = await claimed(mailbox, lease=30)
        node = connected_to(bus, cluster)
        node.pause()
        try:
            async with asyncio.timeout(CHOOSING):
                while True:
                    try:
                        await mailbox.send("a", 2, idempotency_key="k")
                    except StoreError:
                        continue
                    break
                await delivery.ack()
                async with bus_at(cluster.url, namespace) as new:  # whichever it asks first
                    await new.agents()
        finally:
            node.resume()
    await asyncio.to_thread(cluster.until_ok)


async def test_without_a_majority_calls_fail_in_their_time_and_go_on_after_it(
    cluster: NATSCluster,
) -> None:
    namespace = space()
    async with bus_at(cluster.url, namespace, patience=3.0) as bus:
        mailbox = await bus.register("a")
        await mailbox.send("a", 1)
        for node in cluster.nodes[:2]:
            node.kill()
        try:
            error = await within(8, mailbox.send("a", 2, idempotency_key="k"))
            assert isinstance(error, StoreError)
        finally:
            for node in cluster.nodes[:2]:
                await asyncio.to_thread(node.start)
        await asyncio.to_thread(cluster.until_ok)

        async def again() -> bool:
            return not isinstance(
                await within(8, mailbox.send("a", 2, idempotency_key="k")), StoreError
            )

        await until(again, "it goes on", CHOOSING)
        assert await mailbox.message_count() == 2


async def test_a_cluster_that_is_started_anew_is_waited_for(cluster: NATSCluster) -> None:
    namespace = space()
    async with bus_at(cluster.nodes[0].url, namespace, patience=CHOOSING) as bus:
        mailbox = await bus.register("a")
        await mailbox.send("a", 1)
        for node in cluster.nodes:
            node.kill()
        sending = asyncio.create_task(mailbox.send("a", 2))
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in cluster.nodes))
        result = await within(CHOOSING, sending)
        assert not isinstance(result, MessagingError)
        assert await mailbox.message_count() == 2
    await asyncio.to_thread(cluster.until_ok)


async def test_a_missing_node_does_not_mean_fewer_copies(cluster: NATSCluster) -> None:
    node = next(node for node in cluster.nodes if node is not cluster.leader())
    node.kill()
    try:
        namespace = space()
        one = next(each for each in cluster.nodes if each is not node)
        bus = bus_at(one.url, namespace, patience=15.0)
        result = await within(CHOOSING, bus.register("a"))
        await bus.aclose()
        if isinstance(result, MessagingError):
            assert "replicas" in str(result)
        else:
            assert await replicas_of(one.url, namespace) == 3
    finally:
        await asyncio.to_thread(node.start)
    await asyncio.to_thread(cluster.until_ok)
