"""The agents' processes: started, heard, killed on purpose, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from afk.messaging.edges.demo.story import Event
from afk.messaging.edges.demo.work import Job

STOP_PATIENCE = 5.0


class Staff:
    """The processes of one run; leave its context and none is left."""

    def __init__(self, log: Path) -> None:
        self._log_path = log
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._processes: dict[str, Process] = {}
        self._ears: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Staff:
        self._log: BinaryIO = await asyncio.to_thread(self._log_path.open, "ab")
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(_stop(process) for process in self._processes.values()))
        await asyncio.gather(*self._ears)
        self._log.close()

    async def start(self, job: Job) -> int:
        """Start a process for the job; its process id."""
        # -P: a file of the current directory must not stand in for a module of ours.
        # Its input stays open as long as it is to work.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "afk.messaging.edges.demo.work",
            stdin=PIPE,
            stdout=PIPE,
            stderr=self._log,
            # Ctrl-C is for the parent alone: it then lets the others finish what they have begun.
            start_new_session=os.name == "posix",
        )
        self._processes[job.agent] = process
        # By standard input and not as an argument: a URL can hold a password.
        _stdin(process).write(msgspec.json.encode(job) + b"\n")
        self._ears.append(asyncio.create_task(self._listen(job.agent, process)))
        return process.pid

    async def kill(self, agent: str) -> None:
        """kill -9, and wait until the process is gone."""
        process = self._processes[agent]
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def events(self, patience: float) -> AsyncIterator[Event | None]:
        """What the processes say, as they say it; None whenever `patience` seconds are silent."""
        while True:
            try:
                async with asyncio.timeout(patience):
                    event = await self._events.get()
            except TimeoutError:
                yield None
            else:
                yield event

    async def _listen(self, agent: str, process: Process) -> None:
        async for line in cast(StreamReader, process.stdout):
            # A killed process may leave half a line.
            with contextlib.suppress(msgspec.DecodeError):
                self._events.put_nowait(msgspec.json.decode(line, type=Event))
        code = await process.wait()
        self._events.put_nowait(Event(kind="gone", agent=agent, text=f"exit code {code}"))


async def _stop(process: Process) -> None:
    """End its standard input, which is the sign to stop; kill it if it does not."""
    _stdin(process).close()
    try:
        async with asyncio.timeout(STOP_PATIENCE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _stdin(process: Process) -> StreamWriter:
    return cast(StreamWriter, process.stdin)
