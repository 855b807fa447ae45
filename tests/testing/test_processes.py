"""The processes of the checks: from a nursery or an interpreter each, they are the same."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import pkgutil
import random
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from afk.messaging import InMemoryA2ADeliveryStore, MessageBus, stores
from afk.messaging.testing import Subject, nursery
from afk.messaging.testing.processes import PATIENCE, hear, run, say
from afk.messaging.testing.servers.family import children

forked = pytest.mark.skipif(not nursery.usable(), reason="there is no nursery on this system")

DIES = """
import asyncio, os, signal, sys
from pathlib import Path
from test_processes import Anywhere, says_who_it_is
from afk.messaging.testing.processes import run

async def main():
    async with run(Anywhere(Path()), says_who_it_is) as process:
        print(*await process.line(), flush=True)
        os.kill(os.getpid(), int(sys.argv[1]))

asyncio.run(main())
"""


class Anywhere(Subject):
    url = "memory://"

    def store(self, clock: Callable[[], float] | None = None) -> InMemoryA2ADeliveryStore:
        raise NotImplementedError


def works(work: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Another process finds this module by PYTHONPATH."""
    work.__module__ = Path(__file__).stem
    return work


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))


@pytest.fixture
def anywhere(tmp_path: Path) -> Subject:
    return Anywhere(tmp_path)


@pytest.fixture(params=[pytest.param("forked", marks=forked), "started"])
def subject(request: pytest.FixtureRequest, anywhere: Subject) -> Subject:
    """For processes that come from the nursery, then for interpreters."""
    if request.param == "started":
        request.getfixturevalue("monkeypatch").setattr(nursery, "usable", lambda: False)
    return anywhere


def folder(path: str) -> list[Path]:
    return sorted(Path(path).iterdir())


def open_files() -> list[tuple[str, str]]:
    """What is open in this process: the number, and the kind."""
    return [
        (fd.name, str(fd.readlink()).rpartition(":")[0])
        for fd in folder("/proc/self/fd")
        if fd.exists()  # the one that was open to look is not there any more
    ]


async def gone(pid: int) -> bool:
    """Whether this process ends soon."""
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        ready, _, _ = await asyncio.to_thread(select.select, [handle], [], [], PATIENCE)
        os.close(handle)
        return bool(ready)
    return True


# -- what the processes do ---------------------------------------------------------------


@works
async def echoes(bus: MessageBus, *args: Any) -> None:
    say(args)
    while True:
        say(hear())


@works
async def waits(bus: MessageBus) -> None:
    say("waits")
    await asyncio.sleep(PATIENCE)


@works
async def ends(bus: MessageBus, how: str) -> None:
    def work_on() -> None:
        hear()
        say("worked on")

    if how == "raises":
        raise LookupError("not found")
    if how == "exits":
        sys.exit(7)
    if how == "dies":
        os._exit(9)
    if how == "works on":
        threading.Thread(target=work_on).start()
    if how == "unflushed":
        sys.stdout.write('"the last word"\n')


@works
async def looks_around(bus: MessageBus) -> None:
    say(
        {
            "argv": sys.argv,
            "main": sorted(set(vars(sys.modules["__main__"])) & {"__file__", "__name__"}),
            "files": open_files(),
            "leads a session": os.getsid(0) == os.getpgrp() == os.getpid(),
            "streams": [
                (stream.encoding, stream.errors, stream.line_buffering)
                for stream in (sys.stdin, sys.stdout, sys.stderr)
            ],
            "signals": [str(signal.getsignal(number)).split(" at ")[0] for number in range(1, 32)],
            "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
            "threads": len(threading.enumerate()),
            "garbage is collected": gc.isenabled(),
            "path": sys.path,
        }
    )


@works
async def says_where_it_is(bus: MessageBus) -> None:
    flag = bool(sys.flags.dont_write_bytecode)
    say([str(Path.cwd()), os.environ.get("AFK_ONE"), os.environ.get("AFK_TWO"), flag])


@works
async def says_who_it_is(bus: MessageBus) -> None:
    say([os.getpid(), os.getppid()])
    hear()


@works
async def rolls_dice(bus: MessageBus) -> None:
    receipt = await (await bus.register("ada")).send("ada", "hi")
    say([random.random(), receipt.id])


# -- what comes of it --------------------------------------------------------------------


async def test_it_hears_and_says(subject: Subject) -> None:
    async with run(subject, echoes, 1, {"two": [3]}, "grüße\n\ud800") as process:
        assert await process.line() == [1, {"two": [3]}, "grüße\n\ud800"]
        for value in (None, "x" * 2_000_000, "\n"):
            await process.tell(value)
            assert await process.line() == value


@pytest.mark.parametrize(
    ("how", "code"), [("well", 0), ("unflushed", 0), ("raises", 1), ("exits", 7), ("dies", 9)]
)
async def test_it_ends_with_its_exit_code(
    subject: Subject, capfd: pytest.CaptureFixture[str], how: str, code: int
) -> None:
    async with run(subject, ends, how) as process:
        assert await process.wait() == code
        if how == "unflushed":
            assert await process.line() == "the last word"
        process.kill()
        assert await process.wait() == code
    assert ("LookupError: not found" in capfd.readouterr().err) == (how == "raises")


async def test_a_missing_module_is_reported(
    subject: Subject, capfd: pytest.CaptureFixture[str]
) -> None:
    async def lost(bus: MessageBus) -> None: ...

    lost.__module__ = "nowhere.to.be.found"
    async with run(subject, lost) as process:
        with pytest.raises(AssertionError, match="ended early, with 1"):
            await process.line()
    assert "No module named 'nowhere'" in capfd.readouterr().err


async def test_it_ends_after_its_threads(subject: Subject) -> None:
    async with run(subject, ends, "works on") as process:
        await process.tell()
        assert await process.line() == "worked on"
        assert await process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it(subject: Subject, number: int) -> None:
    async with run(subject, waits) as one, run(subject, waits) as two:
        assert (await one.line(), await two.line()) == ("waits", "waits")
        for process in (one, two):
            process.signal(number)
            with pytest.raises(AssertionError, match=f"ended early, with -{number:d}"):
                await process.line()


@forked
async def test_an_early_interrupt_is_not_lost(anywhere: Subject) -> None:
    for _ in range(20):
        async with run(anywhere, waits) as process:
            process.signal(signal.SIGINT)
            assert await process.wait() != 0


async def test_it_is_gone_with_its_block(subject: Subject) -> None:
    async with run(subject, says_who_it_is) as process:
        pid, _ = await process.line()
        assert pid == process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_it_is_where_the_test_is(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFK_ONE", "1")
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    async with run(subject, says_where_it_is) as process:
        assert await process.line() == [str(Path.cwd()), "1", None, False]
    monkeypatch.delenv("AFK_ONE")
    monkeypatch.setenv("AFK_TWO", "\udcff")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.chdir(tmp_path)
    async with run(subject, says_where_it_is) as process:
        assert await process.line() == [str(tmp_path), None, "\udcff", True]


async def test_each_has_its_own_chance(subject: Subject) -> None:
    said = set()
    for _ in range(2):
        async with run(subject, rolls_dice) as process:
            said |= set(await process.line())
    assert len(said) == 4


@forked
async def test_a_forked_one_is_like_a_new_interpreter(
    anywhere: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run(anywhere, echoes), run(anywhere, looks_around) as process:
        forked = await process.line()
    monkeypatch.setattr(nursery, "usable", lambda: False)
    async with run(anywhere, echoes), run(anywhere, looks_around) as process:
        assert await process.line() == forked


@forked
def test_event_loops_share_a_nursery(anywhere: Subject) -> None:
    async def parent() -> int:
        async with run(anywhere, says_who_it_is) as process:
            _, parent = await process.line()
            return parent

    assert asyncio.run(parent()) == asyncio.run(parent())


@forked
async def test_a_nursery_has_no_threads(anywhere: Subject) -> None:
    for store in pkgutil.walk_packages(stores.__path__, f"{stores.__name__}."):
        importlib.import_module(store.name)
    async with run(anywhere, says_who_it_is) as process:
        _, parent = await process.line()
        assert len(folder(f"/proc/{parent}/task")) == 1


@forked
async def test_who_is_not_told_what_to_do_ends(anywhere: Subject) -> None:
    """Cancelled while the nursery forks; all is closed, or the next collection warns."""
    for turns in range(6):
        starting = asyncio.create_task(run(anywhere, echoes).__aenter__())
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        async with run(anywhere, says_who_it_is) as process:
            pid, parent = await process.line()
            for sibling in set(children(parent)) - {pid}:
                assert await gone(sibling)
    gc.collect()


@forked
async def test_a_dead_nursery_is_replaced(anywhere: Subject) -> None:
    async with run(anywhere, says_who_it_is) as process:
        pid, parent = await process.line()
        os.kill(parent, signal.SIGKILL)
        assert await process.wait() != 0
        assert await gone(pid)
        assert await gone(parent)
    async with run(anywhere, says_who_it_is) as process:
        _, other = await process.line()
        assert other != parent


@forked
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_a_nursery_ends_with_its_test_process(number: int) -> None:
    command = sys.executable, "-c", DIES, str(int(number))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=subprocess.DEVNULL)
    said, _ = await process.communicate()
    assert process.returncode == -number
    for pid in map(int, said.split()):
        assert await gone(pid)
