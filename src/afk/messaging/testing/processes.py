"""Other processes for the checks that speak of them.

A check starts a coroutine function of its own module in a new interpreter, or one that a
`nursery` forks, which is the same and cheaper:

    async def sender(bus: MessageBus, key: str) -> None:
        receipt = await (await bus.register("ada")).send("bob", "hi", idempotency_key=key)
        say(receipt.id)

    async with run(subject, sender, "k") as process:
        assert await process.line() == first_id

The function gets a bus at `subject.url` and the arguments of `run`, speaks with `say` and
listens with `hear`, a JSON value a line each.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from ..connect import connect
from . import nursery
from .subject import Subject

Work = Callable[..., Awaitable[None]]
"""What a process does: `async def work(bus, *args)`, at the top of an importable module."""

PATIENCE = 30.0
"""Seconds after which a process that says nothing has failed its check."""

_CHILD = "from afk.messaging.testing.processes import main; main()"


class Process:
    """A process at work in the place of a check."""

    def __init__(self, process: asyncio.subprocess.Process | nursery.Child) -> None:
        self._process = process
        self.pid = process.pid

    async def line(self, timeout: float = PATIENCE) -> Any:
        """The next value it said; AssertionError when it ended, or is silent for `timeout` s."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise AssertionError(f"a process said nothing for {timeout} s") from None
        if not line:
            raise AssertionError(f"a process ended early, with {await self.wait(timeout)}")
        return json.loads(line)

    async def tell(self, value: Any = None) -> None:
        """A value for its next `hear`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value).encode() + b"\n")
        await self._process.stdin.drain()

    def kill(self) -> None:
        """End it as a crash would: it gets no chance to clean up."""
        self.signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code, once it ended; 0 is success."""
        async with asyncio.timeout(timeout):
            return await self._process.wait()


@asynccontextmanager
async def run(subject: Subject, work: Work, *args: Any) -> AsyncIterator[Process]:
    """Another process that does `work(bus, *args)`; it is gone when the block is left.

    args: JSON values. Only for a subject that has a `url`.
    """
    assert subject.url is not None, "this place cannot be reached by another process"
    target = [work.__module__, work.__name__, subject.url, json.dumps(args)]
    started = await (nursery.fork(*target) if nursery.usable() else _interpreter(*target))
    process = Process(started)
    try:
        yield process
    finally:
        process.kill()
        await started.communicate()  # reads what is left, so that its pipes can close


async def _interpreter(*argv: str) -> asyncio.subprocess.Process:
    """A new interpreter that does what this command line says."""
    pipe = asyncio.subprocess.PIPE
    command = sys.executable, "-c", _CHILD, *argv
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=pipe,
        stdout=pipe,
        limit=nursery.LONGEST_LINE,
        start_new_session=True,  # as a forked one
    )


# -- in the other process ----------------------------------------------------------------


def say(value: Any = None) -> None:
    """A value for the check's next `line`."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def hear() -> Any:
    """The next value the check tells; waits for it, event loop and all."""
    return json.loads(sys.stdin.readline())


def main() -> None:
    """Do what the command line says."""
    module, name, url, args = sys.argv[1:]
    work: Work = getattr(importlib.import_module(module), name)

    async def working() -> None:
        async with aclosing(connect(url)) as bus:  # it opens itself when it is used
            await work(bus, *json.loads(args))

    asyncio.run(working())
