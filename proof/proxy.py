"""A bad network between clients and a server: a TCP proxy in a thread of its own.

    with Proxy("127.0.0.1", server.port) as proxy:
        bus = connect(f"redis://127.0.0.1:{proxy.port}")
        proxy.freeze(to_client=False)     # requests get there, answers do not come back
        proxy.heal()

What is held back while it is frozen arrives after it is healed, as it does where packets are sent
again, even if who sent it has left meanwhile. Every method may be called from any thread, and has
taken effect when it returns.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

HOST = "127.0.0.1"
CHUNK = 2**16
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: whoever closes sends RST, and forgets what was not sent."""


class Proxy:
    """Listens on a port of its own as long as its block lasts."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._listening: asyncio.Server | None = None
        self._wires: set[Wire] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.terms = Terms()

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._wires)

    def freeze(self, *, to_server: bool = True, to_client: bool = True) -> None:
        """Nothing passes in this direction, or these; nobody is told."""

        async def act() -> None:
            for frozen, gate in ((to_server, self.terms.out), (to_client, self.terms.back)):
                gate.clear() if frozen else gate.set()

        self._do(act())

    def slow(self, delay: float, chunk: int = CHUNK) -> None:
        """Whatever passes, at most `chunk` bytes at a time, takes `delay` s; each way."""

        async def act() -> None:
            self.terms.delay, self.terms.chunk = delay, chunk

        self._do(act())

    def cut_after(self, count: int) -> None:
        """Each connection, new ones too, is reset after so many more bytes of answers."""

        async def act() -> None:
            self.terms.cut = count
            for wire in self._wires:
                wire.left = count

        self._do(act())

    def reset(self) -> None:
        """RST to both ends of every connection there is."""
        self._do(self._reset())

    def refuse(self) -> None:
        """Reset every connection, and refuse new ones."""

        async def act() -> None:
            self._deafen()
            await self._reset()

        self._do(act())

    def forget(self) -> None:
        """Nothing passes ever again through the connections there are, and nobody is told; new
        ones work. So does a router that has lost its state."""

        async def act() -> None:
            for wire in self._wires:
                wire.open.clear()

        self._do(act())

    def heal(self) -> None:
        """From now on it is a good network; what `forget` did stays."""

        async def act() -> None:
            self.terms.heal()
            for wire in self._wires:
                wire.left = None
            if self._listening is None:
                await self._listen()

        self._do(act())

    # -- in the thread -------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        self._listening = await asyncio.start_server(self._accepted, HOST, self.port, limit=CHUNK)
        self.port = self._listening.sockets[0].getsockname()[1]

    def _deafen(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    async def _reset(self) -> None:
        for wire in list(self._wires):
            wire.reset()
        await asyncio.sleep(0)  # until the sockets are closed

    async def _close(self) -> None:
        self._deafen()
        await self._reset()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._join(reader, writer)
        except asyncio.CancelledError:
            pass  # the proxy is closed
        finally:
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, here = await asyncio.open_connection(*self._target, limit=CHUNK)
        except OSError:
            _abort(writer)
            return
        wire = Wire(self.terms, writer, here)
        self._wires.add(wire)
        try:
            await asyncio.gather(wire.out(reader), wire.back(there))
            await wire.close()
        finally:
            wire.reset()
            self._wires.discard(wire)


class Terms:
    """How the network is now."""

    def __init__(self) -> None:
        self.out, self.back = asyncio.Event(), asyncio.Event()
        self.heal()

    def heal(self) -> None:
        """Good."""
        self.delay = 0.0
        self.chunk = CHUNK
        self.cut: int | None = None
        self.out.set()
        self.back.set()


class Wire:
    """A connection of a client, and its continuation to the server."""

    def __init__(
        self, terms: Terms, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        self._terms = terms
        self._client, self._server = client, server
        self.left = terms.cut
        """Bytes of answers that still pass."""
        self.open = asyncio.Event()
        self.open.set()

    async def out(self, source: asyncio.StreamReader) -> None:
        """Carry what the client says."""
        await self._carry(source, self._server, self._terms.out, self._pass)

    async def back(self, source: asyncio.StreamReader) -> None:
        """Carry what the server says."""
        await self._carry(source, self._client, self._terms.back, self._pass_some)

    async def close(self) -> None:
        """In order: what was written leaves first."""
        for writer in (self._client, self._server):
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def reset(self) -> None:
        """RST, both ways."""
        _abort(self._client)
        _abort(self._server)

    async def _carry(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        gate: asyncio.Event,
        give: Callable[[bytes, asyncio.StreamWriter], Awaitable[None]],
    ) -> None:
        try:
            while data := await source.read(CHUNK):
                while data:
                    await self._gates(gate)
                    size = self._terms.chunk
                    await give(data[:size], sink)
                    data = data[size:]
            await self._gates(gate)  # a FIN is held back as everything is
            sink.write_eof()
        except OSError:
            await self._gates(gate)
            self.reset()

    async def _gates(self, gate: asyncio.Event) -> None:
        await self.open.wait()
        await gate.wait()
        if self._terms.delay:
            await asyncio.sleep(self._terms.delay)

    async def _pass(self, data: bytes, sink: asyncio.StreamWriter) -> None:
        sink.write(data)
        await sink.drain()

    async def _pass_some(self, data: bytes, sink: asyncio.StreamWriter) -> None:
        if self.left is None or self.left > len(data):
            if self.left is not None:
                self.left -= len(data)
            await self._pass(data, sink)
            return
        await self._pass(data[: self.left], sink)
        raise ConnectionResetError("that was enough")


def _abort(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with suppress(OSError):  # it is closed already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
