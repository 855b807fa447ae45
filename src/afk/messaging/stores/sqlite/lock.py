"""The side lock file: who may write, and a count of writes that others can watch for free.

SQLite's own waiting starves some processes (two of eight made one commit in eight seconds);
a queue on `flock` is fair. Holding it around checkpoints too keeps commits and checkpoints of
different processes apart. The file also counts writes: a process that watches it, or glances
at it, learns of others' writes without asking the database.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from weakref import WeakSet

if sys.platform == "win32":  # pragma: no cover - not run by the tests
    import msvcrt

    def _acquire(fd: int) -> None:
        os.lseek(fd, 1 << 30, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_LOCK, 1)

    def _release(fd: int) -> None:
        os.lseek(fd, 1 << 30, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _acquire(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX)

    def _release(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)


_SIZE = 16


def _lengthen(fd: int) -> None:
    """With room on the disk: to touch a hole in memory ends the process if the disk is full."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, _SIZE)
    else:
        os.ftruncate(fd, _SIZE)


_open: WeakSet[LockFile] = WeakSet()


class LockFile:
    """A lock between processes. The first 8 bytes count writes, the next 8 name the holder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(self._fd).st_size < _SIZE:
                _lengthen(self._fd)
            self._memory = mmap.mmap(self._fd, _SIZE)
        except BaseException:
            os.close(self._fd)
            raise
        _open.add(self)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Wait, first come first served, until this process may write."""
        _acquire(self._fd)
        try:
            self._memory[8:16] = os.getpid().to_bytes(8, "little")
            yield
        finally:
            self._memory[8:16] = bytes(8)
            _release(self._fd)

    @property
    def writes(self) -> int:
        """How many writes there have been, by any process."""
        return int.from_bytes(self._memory[:8], "little")

    @property
    def holder(self) -> int:
        """The pid of who holds it now, 0 for no one."""
        return int.from_bytes(self._memory[8:16], "little")

    def count(self) -> None:
        """Note a write; only while held. Written to the file, so that who watches it is woken."""
        os.pwrite(self._fd, ((self.writes + 1) & (2**64 - 1)).to_bytes(8, "little"), 0)

    def close(self) -> None:
        """Let go of the file."""
        _open.discard(self)
        self._memory.close()
        os.close(self._fd)

    def forget_in_child(self) -> None:
        """After a fork: the child must not keep its parent's lock alive."""
        with contextlib.suppress(OSError):
            os.close(self._fd)


def _after_fork() -> None:
    for lock in list(_open):
        lock.forget_in_child()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
