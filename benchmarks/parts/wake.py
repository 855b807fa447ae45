"""How soon a waiting process hears of a message, and what waiting costs."""

from __future__ import annotations

import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator
from typing import Any

from afk.messaging import AgentMailbox, connect

from ..buses import STORES, fresh, payload, percentile
from ..figures import Figure, Goal, Result
from ..runner import Answer, Job, rounds

CROWD = 1000
GAP = 0.02
"""Seconds between two messages: the waiter has gone back to waiting by then."""


async def waiter(path: str, mailboxes: int) -> AsyncIterator[Answer]:
    """First that it waits; then when, on the clock all processes share, each message came."""
    async with connect(f"sqlite:///{path}") as bus:
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
        await asyncio.sleep(1)
        yield {"ready": True}
        await first
        await _end(others)
        yield {"arrived": arrived}


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def wake(count: int, mailboxes: int) -> AsyncIterator[Answer]:
    """Another process's send: from its start, and from its return, to the receiver's hands."""
    with tempfile.TemporaryDirectory(prefix="afk-bench-") as folder:
        path = f"{folder}/bench.db"
        async with connect(f"sqlite:///{path}") as bus:
            sender = await bus.register("sender")
            job = Job("parts.wake:waiter", {"path": path, "mailboxes": mailboxes})
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
        await asyncio.sleep(2)
        cpu, begin = time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        share = 100 * (time.process_time() - cpu) / (time.monotonic() - begin)
        await _end(tasks)
        yield {"value": share}


async def bystander(mailboxes: int, seconds: float) -> AsyncIterator[Answer]:
    """The same while another process sends, about 50 messages a second, to someone else."""
    with tempfile.TemporaryDirectory(prefix="afk-bench-") as folder:
        path = f"{folder}/bench.db"
        async with connect(f"sqlite:///{path}") as bus:
            boxes = [await bus.register(f"agent-{number}") for number in range(mailboxes)]
            await bus.register("other")
            tasks = [asyncio.create_task(box.receive()) for box in boxes]
            job = Job("parts.wake:sending", {"path": path})
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


async def sending(path: str) -> AsyncIterator[Answer]:
    """Send and send, until its parent ends it or is gone."""
    parent = os.getppid()
    async with connect(f"sqlite:///{path}") as bus:
        sender = await bus.register("sender")
        number = 0
        while os.getppid() == parent:
            await sender.send("other", payload(number))
            number += 1
            await asyncio.sleep(GAP)
    yield {}


def measure(quick: bool) -> Result:
    """Waiting, then waking."""
    return Result(_waiting(quick) + _waking(quick))


def _waking(quick: bool) -> list[Figure]:
    jobs = {
        str(mailboxes): Job(
            "parts.wake:wake", {"count": 50 if quick else 200, "mailboxes": mailboxes}
        )
        for mailboxes in (1, CROWD)
    }
    figures = []
    for mailboxes, answers in rounds(jobs, 3 if quick else 5).items():
        values = {name: [answer[name] for answer in answers] for name in answers[0]}
        of = f"sqlite, {_counted(int(mailboxes))}"
        figures += [
            Figure(f"{of}: call of send to arrival, p50", values["p50"], "ms"),
            Figure(f"{of}: call of send to arrival, p99", values["p99"], "ms"),
            Figure(
                f"{of}: return of send to arrival, p50",
                values["after"],
                "ms",
                goal=Goal("<=", 10, "ms"),
            ),
            Figure(f"{of}: return of send to arrival, p99", values["after99"], "ms"),
        ]
    return figures


def _waiting(quick: bool) -> list[Figure]:
    seconds = 3 if quick else 10
    goal = Goal("<", 1, "%")
    jobs = {
        f"{store}, {_counted(mailboxes)}: CPU of waiting": Job(
            "parts.wake:idle", {"store": store, "mailboxes": mailboxes, "seconds": seconds}
        )
        for store in STORES
        for mailboxes in (1, CROWD)
    }
    jobs |= {
        f"sqlite, {_counted(mailboxes)}: CPU beside another's sends": Job(
            "parts.wake:bystander", {"mailboxes": mailboxes, "seconds": seconds}
        )
        for mailboxes in (1, CROWD)
    }
    answers = rounds(jobs, 3)
    return [
        Figure(
            name, [each["value"] for each in values], "%", goal=None if "beside" in name else goal
        )
        for name, values in answers.items()
    ]


def _counted(mailboxes: int) -> str:
    return "1 mailbox" if mailboxes == 1 else f"{mailboxes:,} mailboxes"
