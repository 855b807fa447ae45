"""A nursery: an interpreter that has imported the package, and forks a process for who asks.

A check's processes then cost a fork each, not the start of an interpreter. The nursery is an
interpreter of its own, because a test process has threads and event loops, which do not survive
a fork; it has neither. What it forks has the streams, the environment and the folder that a new
interpreter would have, and its exit code; only the seed of `hash` is the same in all of them.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import NoReturn

LONGEST_LINE = 2**24

_NURSERY = """
from afk.messaging.testing import nursery, processes
nursery.serve()
processes.main()
nursery.leave()
"""
_OURS = "afk.messaging."
_STARTUP = ("FAKETIME", "LANG", "LC_", "LD_", "PYTHON", "TZ")
"""How these variables begin that an interpreter, or a library loaded before it, reads when it
starts, and never again."""

_LONGEST_REQUEST = 2**16
_STDERR = 2
_FDS = 5
_NOBODY_KNOWS = 255
"""The exit code of a process whose nursery has died, as asyncio has it too."""


def usable() -> bool:
    """Whether there can be a nursery here. Elsewhere a fork without exec is fragile or missing."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:  # a kernel before 5.3, or one that may not be asked
        return False
    return True


class Child:
    """A process from the nursery; to who asked for it an `asyncio.subprocess.Process`."""

    def __init__(
        self,
        pid: int,
        stdin: asyncio.StreamWriter,
        stdout: asyncio.StreamReader,
        news: asyncio.StreamReader,
        pipes: ExitStack,
    ) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.returncode: int | None = None
        self._pipes = pipes
        self._end = asyncio.create_task(self._ended(news))

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it has ended, and the news is on its way
            os.kill(self.pid, number)

    async def wait(self) -> int:
        return await asyncio.shield(self._end)

    async def communicate(self) -> None:
        """Read what is left, and close its pipes once it ended."""
        self.stdin.close()
        await self.stdout.read()
        await self.wait()
        self._pipes.close()
        with suppress(OSError):  # it did not read all it was told
            await self.stdin.wait_closed()

    async def _ended(self, news: asyncio.StreamReader) -> int:
        said = await news.read()
        if not said:  # the nursery is gone, and would have taken its children with it
            self.send_signal(signal.SIGKILL)
        self.returncode = int(said or _NOBODY_KNOWS)
        return self.returncode


async def fork(*argv: str) -> Child:
    """A new process that does what `processes.main` does with these words of a command line."""
    order = json.dumps([argv, dict(os.environ)]).encode()
    with ExitStack() as pipes:
        with ExitStack() as theirs:
            folder = os.open(".", os.O_PATH | os.O_DIRECTORY)
            theirs.callback(os.close, folder)
            stdin, hears = await _to_child(pipes, theirs)
            stdout, says = await _from_child(pipes, theirs)
            news, reports = await _from_child(pipes, theirs)
            _nursery().ask(len(order), [hears, says, _STDERR, folder, reports])
        pid = await news.readline()
        if not pid:
            raise RuntimeError("the nursery of processes has died; see stderr")
        stdin.write(order)  # not before: who is not told what to do ends
        return Child(int(pid), stdin, stdout, news, pipes.pop_all())


async def _to_child(ours: ExitStack, theirs: ExitStack) -> tuple[asyncio.StreamWriter, int]:
    """A pipe; each stack closes its end."""
    loop = asyncio.get_running_loop()
    read, write = os.pipe()
    theirs.callback(os.close, read)
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), os.fdopen(write, "wb", 0)
    )
    ours.callback(transport.close)
    return asyncio.StreamWriter(transport, protocol, None, loop), read


async def _from_child(ours: ExitStack, theirs: ExitStack) -> tuple[asyncio.StreamReader, int]:
    """A pipe; each stack closes its end."""
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    read, write = os.pipe()
    theirs.callback(os.close, write)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", 0)
    )
    ours.callback(transport.close)
    return reader, write


class _Nursery:
    """The nursery, for those who ask it. It ends when this process does, however that ends."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - a constant, for this interpreter
                [sys.executable, "-c", _NURSERY], stdin=theirs.fileno(), stdout=subprocess.DEVNULL
            )
        atexit.register(self.close)

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def ask(self, size: int, fds: Sequence[int]) -> None:
        """Have a child forked that reads so many bytes of orders first.

        The nursery gets what this process has of the package, so that no child has to.
        """
        modules = [name for name in list(sys.modules) if name.startswith(_OURS)]
        socket.send_fds(self._control, [json.dumps([size, modules]).encode()], fds)

    def close(self) -> None:
        atexit.unregister(self.close)
        self._control.close()
        self._process.wait()


_nurseries: dict[object, _Nursery] = {}


def _nursery() -> _Nursery:
    """The nursery of this process, for interpreters that start as one would now."""
    startup = frozenset(item for item in os.environ.items() if item[0].startswith(_STARTUP))
    key = os.getpid(), startup
    if key in _nurseries and not _nurseries[key].lives:
        _nurseries.pop(key).close()
    if key not in _nurseries:
        _nurseries[key] = _Nursery()
    return _nurseries[key]


# -- in the nursery ----------------------------------------------------------------------

_Children = dict[int, tuple[int, int]]
"""By the handle of each: its pid, and where to report its end."""


def serve() -> None:
    """Fork whenever asked. Returns in each child; the nursery itself ends in here."""
    # Who asks decides when the nursery ends. Blocked, not ignored: a child's own is kept for it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    children: _Children = {}
    with socket.socket(fileno=sys.stdin.fileno()) as control:
        size, fds = _born(control, children)
    _forget(children)
    _become(size, fds)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _born(control: socket.socket, children: _Children) -> tuple[int, list[int]]:
    """Fork whenever asked. Returns in each child, with what was asked for."""
    while True:
        size, fds = _request(control, children)
        gc.freeze()  # what is here already, no child has to copy when it collects garbage
        if not (pid := os.fork()):
            return size, fds
        _rear(pid, fds, children)


def _request(control: socket.socket, children: _Children) -> tuple[int, list[int]]:
    """The next request, with everything imported for it; meanwhile report who ended."""
    while True:
        ready, _, _ = select.select([control.fileno(), *children], [], [])
        for handle in children.keys() & set(ready):
            _report(handle, *children.pop(handle))
        if control.fileno() in ready:
            break
    message, fds, _, _ = socket.recv_fds(control, _LONGEST_REQUEST, _FDS)
    if not message:  # nobody can ask any more
        _forsake(children)
    size, modules = json.loads(message)
    for name in modules:
        with suppress(ImportError):  # who needs it will say so
            importlib.import_module(name)
    return size, fds


def _rear(pid: int, fds: list[int], children: _Children) -> None:
    """Give a new child's pid to who asked, and have an eye on it."""
    *its, news = fds
    for fd in its:
        os.close(fd)
    _say(news, pid)
    children[os.pidfd_open(pid)] = pid, news


def _report(handle: int, pid: int, news: int) -> None:
    """Say how a child ended."""
    _, status = os.waitpid(pid, 0)
    _say(news, os.waitstatus_to_exitcode(status))
    os.close(news)
    os.close(handle)


def _say(news: int, number: int) -> None:
    with suppress(BrokenPipeError):  # who asked is gone
        os.write(news, b"%d\n" % number)


def _forsake(children: _Children) -> NoReturn:
    """End, and everyone with it."""
    for handle in children:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    sys.exit()


# -- in a child --------------------------------------------------------------------------


def _forget(children: _Children) -> None:
    """Close what belongs to its elder siblings."""
    for handle, (_, news) in children.items():
        os.close(handle)
        os.close(news)


def _become(size: int, fds: list[int]) -> None:
    """Be what a new interpreter would be, with its command line."""
    # Else the kernel lets whoever is stopped go on when the shell that started all this ends.
    os.setsid()
    *streams, folder, _ = fds
    for fd, stream in enumerate(streams):
        os.dup2(stream, fd)
    os.fchdir(folder)
    for fd in fds:
        os.close(fd)
    sys.argv[1:], environment = json.loads(_order(size))
    os.environ.clear()
    os.environ.update(environment)


def _order(size: int) -> bytes:
    """The first bytes of stdin, and no more: the rest is for the work."""
    order = b""
    while len(order) < size:
        more = os.read(sys.stdin.fileno(), size - len(order))
        if not more:
            sys.exit()  # who asked is gone
        order += more
    return order


def leave() -> None:
    """End with success as an interpreter does, but for taking itself apart.

    That touches, and so copies, most of what is shared with the nursery.
    """
    if threading.active_count() > 1:
        return  # the interpreter waits for those it has to
    atexit._run_exitfuncs()  # which `os._exit` leaves out
    sys.stdout.flush()
    os._exit(0)
