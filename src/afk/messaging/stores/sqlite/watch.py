"""Noticing that another process has written to a file, at no cost while none does."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_IN_MODIFY = 2


def watch(path: Path) -> int | None:
    """A descriptor that is readable once the file was written to; None where there is none.

    Linux: inotify(7). Elsewhere, or when the system has no watches left, the caller polls.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        return None
    if libc.inotify_add_watch(descriptor, os.fsencode(path), _IN_MODIFY) < 0:
        os.close(descriptor)
        return None
    return descriptor
