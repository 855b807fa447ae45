"""A bus whose connection is cut at any byte while it opens."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator

import pytest

from afk.messaging import InvalidMessageError, StoreError, connect
from afk.messaging.testing.servers import NATS, Postgres, Server
from afk.messaging.testing.steps import contents
from proof.proxy import HOST, Proxy

CUTS = 40
LONGEST = 12_000
"""Bytes of answers after which a connection is cut, at most; most are cut much earlier."""


@pytest.fixture(params=["redis_server", "postgres18", "nats_server"])
def proxied(request: pytest.FixtureRequest) -> Iterator[tuple[Proxy, str]]:
    """A proxy before a server, and a place behind it."""
    server: Server | Postgres | NATS = request.getfixturevalue(request.param)
    with Proxy(HOST, server.port) as proxy:
        url = server.url.replace(f":{server.port}", f":{proxy.port}")
        yield proxy, f"{url}?namespace={uuid.uuid4().hex}&patience=0.2"


async def test_an_opening_that_is_cut_off_says_so(proxied: tuple[Proxy, str]) -> None:
    """Whatever the driver makes of it: the bus works, or it raises StoreError."""
    proxy, url = proxied
    worked = 0
    for _ in range(CUTS):
        proxy.cut_after(int(LONGEST * random.random() ** 3))
        try:
            async with connect(url) as bus:
                await bus.register("bob")
                worked += 1
        except StoreError:
            pass
    assert worked < CUTS
    proxy.heal()
    async with connect(url.replace("patience=0.2", "patience=10")) as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "hi")
        assert await contents(bob) == ["hi"]


@pytest.mark.parametrize("scheme", ["redis", "postgresql", "nats"])
async def test_what_was_to_be_sent_when_nobody_was_there_can_be_sent_again(scheme: str) -> None:
    """A send and a request name their message and its key; what is wrong with them comes first."""
    bus = connect(f"{scheme}://127.0.0.1:1/{'postgres' * (scheme == 'postgresql')}")
    ada = bus.mailbox("ada")
    with pytest.raises(StoreError) as sent:
        await ada.send("bob", "hi", idempotency_key="k")
    with pytest.raises(StoreError) as asked:
        await ada.request("bob", "hi", timeout=1, idempotency_key="k")
    for error in (sent.value, asked.value):
        assert error.key == "k"
        assert error.message is not None
        assert error.message.content == "hi"
    with pytest.raises(InvalidMessageError, match="broadcast"):
        await ada.request("*", "hi")
    with pytest.raises(InvalidMessageError, match="ttl"):
        await ada.request("bob", "hi", ttl=-1.0)
    await bus.aclose()
