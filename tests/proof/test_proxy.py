"""The bad network does what it says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from afk.messaging.testing.servers import free_port
from afk.messaging.testing.steps import until
from proof.proxy import HOST, Proxy


class Echo:
    """Says what it hears, and remembers it."""

    def __init__(self) -> None:
        self.heard = b""
        self.left = 0
        self.port = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(2**16):
                self.heard += data
                writer.write(data)
        self.left += 1
        writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    """A server behind the proxy."""
    echo = Echo()
    async with await asyncio.start_server(echo.talk, HOST, 0) as listening:
        echo.port = listening.sockets[0].getsockname()[1]
        yield echo


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(HOST, echo.port) as proxy:
        yield proxy


@asynccontextmanager
async def client(proxy: Proxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def silent(reader: asyncio.StreamReader) -> bool:
    """Whether nothing comes for a while."""
    try:
        async with asyncio.timeout(0.2):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


async def test_a_good_network_carries_everything(proxy: Proxy) -> None:
    async with client(proxy) as (reader, writer):
        data = bytes(range(256)) * 4096
        writer.write(data)
        writer.write_eof()
        assert await reader.read(-1) == data


@pytest.mark.parametrize(("to_server", "to_client"), [(True, True), (True, False), (False, True)])
async def test_what_is_frozen_arrives_later(
    proxy: Proxy, echo: Echo, to_server: bool, to_client: bool
) -> None:
    async with client(proxy) as (reader, writer):
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        proxy.freeze(to_server=to_server, to_client=to_client)
        writer.write(b" after")
        assert await silent(reader)
        assert (echo.heard == b"before") == to_server
        proxy.heal()
        assert await reader.readexactly(6) == b" after"


async def test_who_left_in_the_freeze_is_heard_after_it(proxy: Proxy, echo: Echo) -> None:
    async with client(proxy) as (reader, writer):
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        proxy.freeze()
        writer.write(b"b")
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.1)
    assert echo.heard == b"a"
    proxy.heal()
    await until(lambda: echo.heard == b"ab" and echo.left == 1, "its last words")


async def test_a_new_connection_is_frozen_too(proxy: Proxy) -> None:
    proxy.freeze(to_server=False)
    async with client(proxy) as (reader, writer):
        writer.write(b"a")
        assert await silent(reader)


async def test_a_reset_in_the_middle_of_an_answer(proxy: Proxy) -> None:
    async with client(proxy) as (reader, writer):
        proxy.cut_after(4)
        writer.write(b"answer")
        assert await reader.readexactly(4) == b"answ"
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
    async with client(proxy) as (reader, writer):
        writer.write(b"answer")
        with suppress(ConnectionResetError):
            assert await reader.readexactly(4) == b"answ"
            assert not await reader.read(1)
    proxy.heal()
    async with client(proxy) as (reader, writer):
        writer.write(b"answer")
        assert await reader.readexactly(6) == b"answer"


async def test_all_are_reset_now(proxy: Proxy, echo: Echo) -> None:
    async with client(proxy) as (reader, writer):
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        await until(lambda: echo.left == 1 and not proxy.connections, "the server hears of it")


async def test_a_refused_connection(proxy: Proxy) -> None:
    port = proxy.port
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(HOST, port)
    proxy.heal()
    assert proxy.port == port
    async with client(proxy) as (reader, writer):
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"


async def test_a_slow_network_is_slow(proxy: Proxy) -> None:
    async with client(proxy) as (reader, writer):
        proxy.slow(0.1, chunk=3)
        began = time.monotonic()
        writer.write(b"answer")
        assert await reader.readexactly(6) == b"answer"
        assert time.monotonic() - began > 0.3


async def test_a_forgotten_connection_is_silent_for_ever_and_a_new_one_works(proxy: Proxy) -> None:
    async with client(proxy) as (reader, writer), client(proxy) as (_, other):
        other.write(b"x")
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        proxy.forget()
        proxy.heal()
        writer.write(b"b")
        assert await silent(reader)
        async with client(proxy) as (again, anew):
            anew.write(b"c")
            assert await again.readexactly(1) == b"c"


async def test_nobody_behind_it() -> None:
    with Proxy(HOST, free_port()) as nobody, pytest.raises(ConnectionResetError):
        async with client(nobody) as (reader, _):
            await reader.read(1)
