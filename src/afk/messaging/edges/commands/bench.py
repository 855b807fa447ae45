"""`afk bench`: how fast your own store is, from here."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from cyclopts import App

from afk.messaging import AgentMailbox, Delivery, MessageBus, connect

from . import screen, shapes
from .place import UNSAID, Json, Place, on, url_of

commands = App(name="afk")

AT_ONCE = 100
KEPT = 60.0
"""Seconds after which nothing of it is left: an answer must be found by who waits for it."""
CONTENT = {"task": "summarise chapter 7", "text": "The quick brown fox jumps. " * 5}


@commands.command
def bench(*, count: int = 500, place: Place = UNSAID, as_json: Json = False) -> None:
    """Measure the store with messages between two agents that are gone afterwards.

    One at a time; 100 at a time; requests with their answers. It is your machine, store and
    network at this moment: for comparisons with others see the figures in the docs.

    Parameters
    ----------
    count
        How many messages of each kind.
    as_json
        Print the figures as JSON.
    """
    url = url_of(place)

    async def work(_: MessageBus) -> None:
        async with connect(url, history=0.0, retention=KEPT) as bus, _pair(bus) as (ada, bob):
            found = {
                "one_at_a_time": await _one_at_a_time(ada, bob, count),
                "hundred_at_a_time": await _together(ada, bob, count),
                **await _requests(ada, bob, count),
                "durability": bus.durability,
            }
        if as_json:
            shapes.put(found)
            return
        print(f"one at a time: {found['one_at_a_time']:,} messages/s")
        print(f"{AT_ONCE} at a time: {found['hundred_at_a_time']:,} messages/s")
        spread = f"{found['request_p50_ms']} ms (p99 {found['request_p99_ms']} ms)"
        print(f"a request and its answer: {spread}")
        print(screen.printable(f"durability: {found['durability']}"))

    on(place, work)


@asynccontextmanager
async def _pair(bus: MessageBus) -> AsyncIterator[tuple[AgentMailbox, AgentMailbox]]:
    names = [f"afk.bench/{os.getpid()}/{name}" for name in ("ada", "bob")]
    ada, bob = [await bus.register(name) for name in names]
    try:
        yield ada, bob
    finally:
        for name in names:
            await bus.unregister(name)
            await bus.discard(agent=name)


async def _one_at_a_time(ada: AgentMailbox, bob: AgentMailbox, count: int) -> int:
    begin = time.perf_counter()
    for _ in range(count):
        await ada.send(bob.name, CONTENT)
        await bob.receive(timeout=10)
    return round(count / (time.perf_counter() - begin))


async def _together(ada: AgentMailbox, bob: AgentMailbox, count: int) -> int:
    over, left = asyncio.Event(), count

    async def handler(delivery: Delivery[Any]) -> None:
        nonlocal left
        left -= 1
        if not left:
            over.set()

    async def some(number: int) -> None:
        for _ in range(number, count, AT_ONCE):
            await ada.send(bob.name, CONTENT)

    begin = time.perf_counter()
    async with _served(bob, handler):
        await asyncio.gather(*(some(number) for number in range(AT_ONCE)))
        await over.wait()
    return round(count / (time.perf_counter() - begin))


async def _requests(ada: AgentMailbox, bob: AgentMailbox, count: int) -> dict[str, float]:
    async def handler(delivery: Delivery[Any]) -> str:
        return "answer"

    took = []
    async with _served(bob, handler):
        for _ in range(max(1, count // 5)):
            begin = time.perf_counter()
            await ada.request(bob.name, CONTENT)
            took.append((time.perf_counter() - begin) * 1e3)
    took.sort()
    p50, p99 = (took[int((len(took) - 1) * share)] for share in (0.5, 0.99))
    return {"request_p50_ms": round(p50, 2), "request_p99_ms": round(p99, 2)}


@asynccontextmanager
async def _served(mailbox: AgentMailbox, handler: Any) -> AsyncIterator[None]:
    worker = asyncio.create_task(mailbox.serve(handler, concurrency=AT_ONCE))
    try:
        yield
    finally:
        worker.cancel()  # what its handlers finished is acked before it ends
        await asyncio.gather(worker, return_exceptions=True)
