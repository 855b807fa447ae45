"""Every example that `afk ... --help` shows, in a shell, as somebody would copy it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from cyclopts import App

from afk.messaging import AgentMailbox, Delivery, Reject, connect
from afk.messaging.edges.commands import app
from afk.messaging.testing.servers import Server
from afk.messaging.testing.steps import until

PATIENCE = 60.0
SOME_ID = "019aba5a1b2c00000000014f2a9c3d7e"
GO_ON = ("afk tail --agent", "afk dev up", "while ")
"""These go on until they are interrupted."""


def examples(commands: App) -> Iterator[str]:
    """The lines that the help of each command shows as examples."""
    for name in commands:
        if name.startswith("-"):
            continue
        command = commands[name]
        yield from examples(command)
        alone = command.default_command is None
        shown = command.help if alone else command.default_command.__doc__
        _, _, rest = (shown or "").partition("Examples\n")
        lines = rest.partition("Parameters\n")[0]
        yield from re.findall(r"^ *((?:\S+ .*)?\bafk .*)$", lines, re.MULTILINE)


EXAMPLES = list(examples(app))


@asynccontextmanager
async def a_team(url: str) -> AsyncIterator[str]:
    """Agents as the examples speak of: a writer with mail, a request and a dead letter, an oracle
    that answers. The id of the request."""

    async def answer(delivery: Delivery[object]) -> int:
        return 42

    async with connect(url) as bus:
        ci, writer = await bus.register("ci"), await bus.register("writer")
        oracle = await bus.register("oracle")
        await ci.send("writer", {"customer": 7})
        delivery = await writer.claim(0)
        assert delivery is not None
        with suppress(Reject):
            async with delivery:
                raise Reject("no such customer")
        asking = asyncio.create_task(ci.request("writer", "Is it done?", timeout=PATIENCE))
        serving = asyncio.create_task(oracle.serve(answer))
        try:
            await until(lambda: asks(writer), "the request is there")
            [waiting] = await writer.peek()
            yield waiting.id
        finally:
            asking.cancel()
            serving.cancel()
            await asyncio.gather(asking, serving, return_exceptions=True)


async def asks(writer: AgentMailbox) -> bool:
    return await writer.message_count() > 0


def shell(line: str, folder: Path, url: str) -> subprocess.Popen[str]:
    """The line, in a shell of its own with `afk` and the example's own tool in its path."""
    tools = folder / "bin"
    tools.mkdir()
    (tools / "my-writer").write_text("#!/bin/sh\nafk receive writer --ack\n")
    (tools / "my-writer").chmod(0o755)
    (folder / "notes.txt").write_text("what was said")
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    places = {"XDG_CONFIG_HOME": str(folder / "config"), "XDG_STATE_HOME": str(folder / "state")}
    return subprocess.Popen(
        ["bash", "-c", line],
        cwd=folder,
        env=os.environ | places | {"PATH": path, "AFK_MESSAGING_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 15


@pytest.mark.parametrize("line", EXAMPLES)
async def test_an_example_does_what_it_says(
    line: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/team.db"
    if "--url redis://localhost" in line:
        server: Server = request.getfixturevalue("redis_server")
        url = server.url
        line = line.replace("redis://localhost", url)
    async with a_team(url) as waiting:
        with shell(line.replace(SOME_ID, waiting), tmp_path, url) as process:
            try:
                await ends(process, line, url)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise


async def ends(process: subprocess.Popen[str], line: str, url: str) -> None:
    """Wait for its end, or interrupt it once it has said something."""
    if line.startswith(GO_ON):
        first = await first_words(process, url)
        # A tool that was just starting ends by itself, and the loop goes on: interrupted again.
        err = await interrupted(process, every=2.0 if line.startswith("while ") else PATIENCE)
        assert first, err
        if line.startswith("while "):
            return  # and Python says so
    else:
        _, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE / 2)
        assert process.returncode == 0, err
    assert "Traceback" not in err


async def interrupted(process: subprocess.Popen[str], every: float) -> str:
    """What it says of errors, once it has ended; every: seconds until it is interrupted again."""
    ending = asyncio.create_task(asyncio.to_thread(process.communicate, timeout=PATIENCE / 2))
    while not ending.done():
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        await asyncio.wait([ending], timeout=every)
    _, err = await ending
    return err


async def first_words(process: subprocess.Popen[str], url: str) -> str:
    """What it prints first, as the writer gets mail; nothing if it is killed for its silence."""
    assert process.stdout is not None
    reading = asyncio.create_task(asyncio.to_thread(process.stdout.readline))
    async with connect(url) as bus:
        for _ in range(int(PATIENCE * 2)):
            await bus.mailbox("ci").send("writer", "news")
            await asyncio.wait([reading], timeout=0.5)
            if reading.done():
                break
        else:
            os.killpg(process.pid, signal.SIGKILL)
    return await reading
