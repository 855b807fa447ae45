"""One agent's process: `python -m afk.messaging.edges.demo.work`.

Its job is one line of JSON on standard input. It works until standard input ends, which is also
what happens when the parent dies, however it dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from afk.messaging import (
    AgentMailbox,
    AgentMessage,
    Delivery,
    MessageBus,
    MessagingError,
    connect,
)
from afk.messaging.edges.demo.agents import HANDLERS, Desk, coordinate
from afk.messaging.edges.demo.folder import FolderError
from afk.messaging.edges.demo.mail import COORDINATOR
from afk.messaging.edges.demo.shelf import Shelf, ShelfError
from afk.messaging.edges.demo.story import Event

DAY = 86_400.0


class Job(msgspec.Struct, frozen=True):
    """All a process needs to know."""

    agent: str
    mailbox: str
    url: str
    namespace: str
    workflow: str
    folder: str
    out: str
    pace: float
    lease: float


def open_bus(url: str, namespace: str) -> MessageBus:
    """The newsroom's bus; keys and bodies live for a week, so that a run can be repeated."""
    return connect(url, namespace=namespace, retention=7 * DAY, history=7 * DAY)


async def work(job: Job) -> None:
    """Serve the job's mailbox until standard input ends; as the coordinator, run the errand too."""
    desk = Desk(
        Shelf(Path(job.out)), partial(say, job.agent), job.workflow, Path(job.folder), job.pace
    )
    ended = _stdin_ends()
    async with open_bus(job.url, job.namespace) as bus, asyncio.TaskGroup() as tasks:
        mailbox = await bus.register(job.mailbox)
        handler = partial(_handle, desk, job.mailbox)
        running = [tasks.create_task(mailbox.serve(handler, lease=job.lease, grace=2.0))]
        desk.say("ready")
        if job.mailbox == COORDINATOR:
            running.append(tasks.create_task(_errand(desk, mailbox)))
        await ended.wait()
        for task in running:
            task.cancel()


async def _errand(desk: Desk, mailbox: AgentMailbox) -> None:
    published = await coordinate(desk, mailbox)
    desk.say("published", path=published.report, total=published.files)


async def _handle(
    desk: Desk, mailbox: str, delivery: Delivery[AgentMessage]
) -> dict[str, Any] | None:
    """The mailbox's handler, with the story told around it."""
    message = delivery.message
    content = message.content if isinstance(message.content, dict) else {}
    path = str(content.get("path") or content.get("kind"))
    desk.say("start", path=path, id=message.id, attempt=delivery.attempt)
    answer = await HANDLERS[mailbox](desk, delivery)
    desk.say("finish", path=path, id=message.id, attempt=delivery.attempt)
    return answer


def say(agent: str, kind: Any, **fields: Any) -> None:
    """One event on standard output, in one write, so that a kill cannot leave half of two."""
    line = msgspec.json.encode(Event(kind=kind, agent=agent, **fields)) + b"\n"
    # Work does not fail because nobody listens any more.
    with contextlib.suppress(BrokenPipeError):
        os.write(1, line)


def _stdin_ends() -> asyncio.Event:
    """Set once standard input has ended."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def watch() -> None:
        # The file descriptor, not the file object: its lock would be held at interpreter exit.
        while os.read(0, 1024):
            pass
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=watch, daemon=True).start()
    return ended


def main() -> None:
    """Read the job and do it; what ends it early is told in one line, anything else in the log."""
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {job.agent} %(message)s")
    try:
        asyncio.run(work(job))
    except* (FolderError, ShelfError, MessagingError) as errors:
        say(job.agent, "failed", text=str(errors.exceptions[0]))
        sys.exit(1)


if __name__ == "__main__":
    main()
