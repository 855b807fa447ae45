"""A disk that can lose its power: an ext4 file system in a file, shut down where it stands.

The ioctl stops the file system without writing its log, as a kernel that stops does: what was not
synced is gone, and the next mount replays the log. The file is on another disk, which goes on.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

_SHUTDOWN = 0x8004587D
"""FS_IOC_SHUTDOWN, of xfs and ext4."""
_NO_LOG_FLUSH = struct.pack("I", 2)
_TOOLS = ("mkfs.ext4", "mount", "umount")
_PATIENCE = 20.0
"""Seconds within which those who used the disk and were killed are gone."""
_GUARD = """\
cat >/dev/null
for process in /proc/[0-9]*; do
    if ls -l $process/cwd $process/fd 2>/dev/null | grep -qF " $0/disk"; then
        kill -KILL ${process#/proc/}
    fi
done
umount --lazy --recursive "$0"
"""
"""Waits until its parent ends, however that ends; then frees the disk."""


class Disk:
    """A disk of so many MiB. place: where its files are, while it has power."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.place = folder / "disk"
        self._image = folder / "disk.img"
        self.place.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(size << 20)
        _call("mkfs.ext4", "-q", "-F", self._image)

    def share(self) -> None:
        """Have whoever copies the table of mounts, as `ip netns` does, lose the disk with us."""
        _call("mount", "--bind", self.folder, self.folder)
        _call("mount", "--make-shared", self.folder)

    def mount(self) -> None:
        """Switch it on: what it had begun, it completes or undoes."""
        _call("mount", "-o", "loop", self._image, self.place)

    def sync(self) -> None:
        """Have all of it written: what follows meets a place that is long there."""
        _call("sync", "--file-system", self.place)

    def cut(self) -> float:
        """Take its power away; the time of `time.monotonic` before which it surely had it."""
        handle = os.open(self.place, os.O_RDONLY)
        try:
            at = time.monotonic()
            fcntl.ioctl(handle, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(handle)
        return at

    def unmount(self) -> None:
        """Switch it off; nobody may use it any more."""
        end = time.monotonic() + _PATIENCE
        while self._in_use():
            if time.monotonic() > end:
                raise OSError(errno.EBUSY, "someone uses the disk, whose power was cut")
            time.sleep(0.01)

    def _in_use(self) -> bool:
        if self.place.is_mount():
            with suppress(OSError):  # those who were killed may not be gone yet
                _call("umount", self.place)
        return str(self._image) in _loops()


def _loops() -> set[str]:
    """The files that are disks now."""
    found = set()
    for device in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # just gone
            found.add(device.read_text().strip())
    return found


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Disk]:
    """A new disk, switched on; it is gone after the block, and when this process is killed."""
    made = Disk(folder.resolve(), size)
    guard = subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, made.folder], stdin=subprocess.PIPE, process_group=0
    )
    try:
        made.share()
        made.mount()
        yield made
        made.unmount()
    finally:
        guard.communicate()
        shutil.rmtree(folder)


@cache
def lacks() -> str:
    """Why there can be no such disk here; "" if there can."""
    if sys.platform != "linux":
        return "needs Linux: ext4, loop devices and the ioctl that shuts a file system down"
    if os.geteuid() != 0:
        return "needs root, to mount a file as a disk"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    try:
        with TemporaryDirectory() as name, disk(Path(name, "tried"), 4) as tried:
            tried.cut()
    except OSError as error:
        return f"needs a disk whose power can be cut: {error}"
    return ""


def _call(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(errno.EIO, f"{command[0]}: {done.stderr.strip()}")
