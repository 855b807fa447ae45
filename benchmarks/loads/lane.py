"""The least that a mailbox in memory can be: what is put is checked to be JSON, copied, named, kept
in line, leased to who gets it, acked, and remembered for a while; who put it has a receipt.

No recipients, keys, priorities, delays, threads, retries, traces or other stores: written by hand
for the benchmark, as a limit for whoever keeps such promises in Python.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from typing import Any

import msgspec

HISTORY = 100_000
LEASE = 30.0

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Kept(msgspec.Struct, gc=False):
    """A message and where it is."""

    id: str
    content: bytes
    accepted: float
    state: str = "pending"
    lease: float = 0.0
    settled: float = 0.0


class Receipt(msgspec.Struct):
    """What the sender holds."""

    kept: Kept
    durability: str = "memory"


class Lane:
    """A mailbox with the calls of `asyncio.Queue`."""

    def __init__(self) -> None:
        self._waiting: deque[Kept] = deque()
        self._leased: dict[str, Kept] = {}
        self._history: deque[Kept] = deque(maxlen=HISTORY)
        self._waiter: asyncio.Future[None] | None = None
        self._number = itertools.count()

    async def put(self, content: Any) -> Receipt:
        """Keep it; refused if it is not JSON."""
        text = _encode(content)
        if _decode(text) != content:
            raise ValueError("not JSON")
        kept = Kept(f"{next(self._number):032x}", text, time.time())
        self._waiting.append(kept)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        return Receipt(kept)

    async def get(self) -> Any:
        """The next one, claimed and acked."""
        kept = await self.claim()
        content = _decode(kept.content)
        self.ack(kept.id)
        return content

    async def claim(self) -> Kept:
        """The next one, under a lease."""
        while not self._waiting:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        kept = self._waiting.popleft()
        kept.state, kept.lease = "leased", time.time() + LEASE
        self._leased[kept.id] = kept
        return kept

    def ack(self, name: str) -> None:
        """It is done, and remembered."""
        kept = self._leased.pop(name)
        kept.state, kept.settled = "done", time.time()
        self._history.append(kept)
