"""The commands that go on until they are interrupted, in a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from afk.messaging import connect

AFK = [sys.executable, "-m", "afk.messaging.edges.cli"]
PATIENCE = 30.0


class Terminal:
    """A process and what it has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process = process
        self.text = ""
        self._fd = fd

    def until(self, pattern: str) -> str:
        """What it printed, once that matches."""
        end = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.text)):
            ready, _, _ = select.select([self._fd], [], [], end - time.monotonic())
            assert ready, f"no {pattern!r} in {self.text!r}"
            self.text += os.read(self._fd, 65536).decode("utf-8", "replace")
        return found[0]

    def interrupt(self) -> int:
        """Ctrl-C; its exit code."""
        os.write(self._fd, b"\x03")
        return self.process.wait(PATIENCE)


@contextmanager
def terminal(*words: object, **environment: str) -> Iterator[Terminal]:
    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "30"} | environment
    process = subprocess.Popen(
        [*AFK, *map(str, words)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
        start_new_session=True,
        preexec_fn=_own_terminal,  # noqa: PLW1509 - it calls the system and nothing else
    )
    os.close(terminal)
    try:
        yield Terminal(process, controller)
    finally:
        process.kill()
        process.wait()
        os.close(controller)


def _own_terminal() -> None:
    """Ctrl-C typed into it reaches the process."""
    os.close(os.open(os.ttyname(0), os.O_RDWR))


@pytest.fixture
async def url(tmp_path: Path) -> str:
    """A store with one agent."""
    url = f"sqlite:///{tmp_path}/team.db"
    async with connect(url) as bus:
        await bus.register("bob")
    return url


async def test_top_follows_the_mail(url: str) -> None:
    with terminal("top", "--every", 0.1, "--url", url) as screen:
        screen.until(r"bob +0 +0")
        async with connect(url) as bus:
            await bus.mailbox("ada").send("bob", "hi")
        screen.until(r"bob +1 +0")
        assert "1 agents, 1 open" in screen.text
        assert screen.interrupt() == -signal.SIGINT


async def test_tail_follows_the_mail(url: str) -> None:
    with terminal("tail", "--every", 0.1, "--from-start", "--url", url) as screen:
        async with connect(url) as bus:
            await bus.mailbox("ada").send("bob", "one \x1b[31m")
            screen.until(r"ada -> bob +one \\x1b\[31m")
            await bus.mailbox("ada").send("bob", "two")
        screen.until("two")
        assert screen.interrupt() == -signal.SIGINT


async def test_a_person_is_asked(url: str) -> None:
    async with connect(url) as bus:
        bob = bus.mailbox("bob")
        await bob.send("bob", "x")
        delivery = await bob.claim(0)
        assert delivery is not None
        await delivery.reject("no")
    with terminal("dead", "discard", "--agent", "bob", "--url", url, HOME="/nowhere") as screen:
        screen.until(r"discard 1 dead letter\(s\)\? \[y/N\] ")
        os.write(screen._fd, b"n\n")
        screen.until("nothing was changed")
        assert screen.process.wait(PATIENCE) == 1


@pytest.mark.parametrize("name", ["redis", "postgres", "nats"])
async def test_a_server_to_develop_with(name: str, tmp_path: Path) -> None:
    with terminal("dev", "up", name, "--folder", tmp_path / "data") as screen:
        url = screen.until(r"\w+://[^\r\n]+(?=\r\n)")
        async with connect(url) as bus:
            assert await (await bus.register("bob")).send("bob", "hi")
        assert screen.interrupt() == 0
    with terminal("dev", "up", name, "--folder", tmp_path / "data") as screen:
        async with connect(screen.until(r"\w+://[^\r\n]+(?=\r\n)")) as bus:
            assert await bus.mailbox("bob").message_count() == 1
        screen.process.send_signal(signal.SIGTERM)
        assert screen.process.wait(PATIENCE) == 0
