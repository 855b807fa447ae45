"""The wall clock of one process, which jumps: libfaketime answers when it asks for the time.

What counts seconds (`time.monotonic`, timeouts) goes on as it does when an administrator or a time
server sets the clock of a machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LIBRARY = "faketime/libfaketimeMT.so.1"


def lacks() -> str:
    """What keeps a clock from jumping here; "" if nothing does."""
    if _library() is None:
        return "libfaketime not found; to get it: apt-get install faketime"
    return ""


def _library() -> Path | None:
    found = [*Path("/usr/lib").glob(f"*/{_LIBRARY}"), *Path("/usr/lib").glob(_LIBRARY)]
    return found[0] if found else None


class Clock:
    """A clock that is set by a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.set(0)

    def set(self, ahead: float) -> None:
        """So many seconds ahead of the machine's, from now on."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{ahead:+}\n")
        new.replace(self.file)

    @contextmanager
    def worn(self) -> Iterator[None]:
        """An interpreter that is started in the block goes by it."""
        wanted = {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        assert not wanted.keys() & os.environ.keys()
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name in wanted:
                del os.environ[name]
