"""The processes that a server has started itself."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


def children(pid: int) -> list[int]:
    """The children of a process, as Linux knows them; elsewhere none."""
    known = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in known.read_text().split()] if known.exists() else []


def tell(pids: list[int], number: signal.Signals) -> None:
    """A signal for each that lives."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@contextmanager
def doomed(pids: list[int]) -> Iterator[None]:
    """Processes that end with the block, by force, and are gone after it."""
    with ExitStack() as stack:
        handles = []
        for pid in pids:
            with suppress(ProcessLookupError):
                handles.append(os.pidfd_open(pid))  # another process may get the number
                stack.callback(os.close, handles[-1])
        yield
        for handle in handles:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        for handle in handles:
            select.select([handle], [], [])
