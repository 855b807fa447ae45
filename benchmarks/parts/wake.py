"""How soon a waiting process hears of a message, and what waiting costs."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator
from typing import Any

from afk.messaging import AgentMailbox, connect

from ..buses import STORES, fresh, payload, percentile, place
from ..figures import Figure, Goal
from ..results import Result
from ..runner import Answer, Job, rounds
from . import Wish

__all__ = ["STORES", "measure"]

CROWD = 1000
GAP = 0.02
"""Seconds between two messages: the waiter has gone back to waiting by then."""
_SOON = {"sqlite": 10, "redis": 2, "postgres": 5, "nats": 2, "nats_synced": 2}
"""The goal for the stores that processes share, in milliseconds."""


async def waiter(url: str, mailboxes: int) -> AsyncIterator[Answer]:
    """First that it waits; then when, on the clock all processes share, each message came."""
    async with connect(url) as bus:
        arrived: list[int] = []

        async def read(mailbox: AgentMailbox) -> None:
            while True:
                message = await mailbox.receive()
                assert message is not None
                arrived.append(time.monotonic_ns())
                if message.content["final"]:
                    return

        boxes = [await bus.register(f"agent-{number}") for number in range(mailboxes)]
        first, *others = [asyncio.create_task(read(box)) for box in boxes]
        await _quiet(1)
        yield {"ready": True}
        await first
        await _end(others)
        yield {"arrived": arrived}


async def _quiet(seconds: float) -> None:
    """So long at least, and until every mailbox has found nothing and only waits: the process does
    next to nothing, or half a minute has shown that it always does something."""
    await asyncio.sleep(seconds)
    end = time.monotonic() + 30
    busy = True
    while busy and time.monotonic() < end:
        cpu = time.process_time()
        await asyncio.sleep(0.5)
        busy = time.process_time() - cpu > 0.01


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    assert not any(task.done() for task in tasks), "who waits for nothing has an answer"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def wake(store: str, count: int, mailboxes: int) -> AsyncIterator[Answer]:
    """Another process's send: from its start, and from its return, to the receiver's hands."""
    with place(store) as url:
        async with connect(url) as bus:
            sender = await bus.register("sender")
            job = Job("parts.wake:waiter", {"url": url, "mailboxes": mailboxes})
            process = await asyncio.create_subprocess_exec(
                *job.command(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=1 << 24,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"\n\n")
            await process.stdout.readline()
            begun, sent = [], []
            for number in range(count):
                await asyncio.sleep(GAP + random.random() * GAP)
                content: dict[str, Any] = payload(number) | {"final": number == count - 1}
                begun.append(time.monotonic_ns())
                await sender.send("agent-0", content)
                sent.append(time.monotonic_ns())
            arrived = json.loads(await process.stdout.readline())["arrived"]
            process.stdin.close()
            await process.wait()
        whole = [(at - since) / 1e6 for at, since in zip(arrived, begun, strict=True)]
        after = [(at - since) / 1e6 for at, since in zip(arrived, sent, strict=True)]
        yield {
            "p50": percentile(whole, 0.5),
            "p99": percentile(whole, 0.99),
            "after": percentile(after, 0.5),
            "after99": percentile(after, 0.99),
        }


async def idle(store: str, mailboxes: int, seconds: float) -> AsyncIterator[Answer]:
    """The share of a core, in percent, of a process whose mailboxes wait for nothing."""
    async with fresh(store) as bus:
        boxes = [await bus.register(f"agent-{number}") for number in range(mailboxes)]
        tasks = [asyncio.create_task(box.receive()) for box in boxes]
        await _quiet(2)
        cpu, begin = time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        share = 100 * (time.process_time() - cpu) / (time.monotonic() - begin)
        await _end(tasks)
        yield {"value": share}


async def bystander(store: str, mailboxes: int, seconds: float) -> AsyncIterator[Answer]:
    """The same while another process sends, about 50 messages a second, to someone else."""
    with place(store) as url:
        async with connect(url) as bus:
            boxes = [await bus.register(f"agent-{number}") for number in range(mailboxes)]
            await bus.register("other")
            tasks = [asyncio.create_task(box.receive()) for box in boxes]
            await _quiet(0)
            job = Job("parts.wake:sending", {"url": url})
            process = await asyncio.create_subprocess_exec(
                *job.command(), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
            )
            assert process.stdin is not None
            process.stdin.write(b"\n")
            await asyncio.sleep(2)
            cpu, begin = time.process_time(), time.monotonic()
            await asyncio.sleep(seconds)
            share = 100 * (time.process_time() - cpu) / (time.monotonic() - begin)
            process.terminate()
            await process.wait()
            await _end(tasks)
            yield {"value": share}


async def sending(url: str) -> AsyncIterator[Answer]:
    """Send and send, until its parent ends it or is gone."""
    parent = os.getppid()
    async with connect(url) as bus:
        sender = await bus.register("sender")
        number = 0
        while os.getppid() == parent:
            await sender.send("other", payload(number))
            number += 1
            await asyncio.sleep(GAP)
    yield {}


def measure(wish: Wish, store: str) -> Result:
    """Waiting, then waking, which needs another process."""
    quick = wish.quick
    return Result(_waiting(quick, store) + (_waking(quick, store) if store in _SOON else []))


def _waking(quick: bool, store: str) -> list[Figure]:
    count = 50 if quick else 200
    jobs = {
        f"{store}, {_counted(mailboxes)}": Job(
            "parts.wake:wake", {"store": store, "count": count, "mailboxes": mailboxes}
        )
        for mailboxes in (1, CROWD)
    }
    goal = Goal("<=", _SOON[store], "ms")
    figures = []
    for of, answers in rounds(jobs, 2 if quick else 5).items():
        values = {name: [answer[name] for answer in answers] for name in answers[0]}
        figures += [
            Figure(f"{of}: call of send to arrival, p50", values["p50"], "ms"),
            Figure(f"{of}: call of send to arrival, p99", values["p99"], "ms"),
            Figure(f"{of}: return of send to arrival, p50", values["after"], "ms", goal=goal),
            Figure(f"{of}: return of send to arrival, p99", values["after99"], "ms"),
        ]
    return figures


def _waiting(quick: bool, store: str) -> list[Figure]:
    seconds = 2 if quick else 10
    kinds = {"CPU of waiting": "idle", "CPU beside another's sends": "bystander"}
    if store not in _SOON:
        kinds.pop("CPU beside another's sends")
    jobs = {
        f"{store}, {_counted(mailboxes)}: {what}": Job(
            f"parts.wake:{kind}", {"store": store, "mailboxes": mailboxes, "seconds": seconds}
        )
        for what, kind in kinds.items()
        for mailboxes in (1, CROWD)
    }
    return [
        Figure(
            name,
            [each["value"] for each in answers],
            "%",
            goal=None if "beside" in name else Goal("<", 1, "%"),
        )
        for name, answers in rounds(jobs, 2 if quick else 3).items()
    ]


def _counted(mailboxes: int) -> str:
    return "1 mailbox" if mailboxes == 1 else f"{mailboxes:,} mailboxes"
