"""What each process saw, written down as it happens. Nothing here knows the library.

A process appends lines of JSON to a file of its own. A line is handed to the system before `note`
returns, so `kill -9` of the process loses none. `read` merges the files of a folder; times are of
`time.monotonic`, which all processes of a machine share.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any, Literal

import msgspec

Kind = Literal[
    "send", "claim", "settle", "handle", "effect", "redrive", "cancel", "fault", "final", "drained"
]
Phase = Literal["invoke", "ok", "fail", "unknown"]
SERVER = "*"
"""The process of a fault that may touch everyone: of a server, or of a network."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing a process saw. A call is an `invoke` and its end, joined by `process` and `call`.

    send     invoke (key, sender, mailbox, digest, rank), then ok (id, duplicate), fail (error: it
             was refused, nothing is stored) or unknown (error: it may be stored).
    claim    ok only: id, mailbox, digest, token, attempt; `since` is when it was asked for, and it
             is the claimer's for `lease` s from some time between the two. Of a `receive`, which
             does not tell, neither token nor attempt nor lease.
    settle   invoke (id, token, outcome), then ok, fail (error `lost` if the lease was), unknown.
             outcome: done, again, dead, extend, or back (given back, no attempt used).
    handle   invoke (id, mailbox, digest, attempt) as a handler begins, then ok, fail or
             unknown as it ends. What follows, its worker does, out of the handler's sight.
    effect   ok: one effect of the message `id`, as it is found in the end, one event each.
    redrive  ok: the message `id` is being redriven. cancel, ok: it was cancelled.
    fault    ok: something was done to `process` (SERVER: to all), `outcome` says what.
    final    ok: a message as the store has it in the end: id, mailbox, digest, attempt, outcome
             (its state: scheduled, pending, leased, done, dead, cancelled), error (the reason).
    drained  ok: everyone has stopped, `since` is when the last fault was over.
    """

    kind: Kind
    phase: Phase = "ok"
    at: float = 0.0
    process: str = ""
    call: int = 0
    id: str = ""
    key: str = ""
    sender: str = ""
    mailbox: str = ""
    digest: str = ""
    rank: int = 2
    token: str = ""
    attempt: int = 0
    lease: float = 0.0
    since: float = 0.0
    outcome: str = ""
    error: str = ""
    duplicate: bool = False
    deadline: float | None = None


class History:
    """The file of one process; `name` is how the events of others speak of it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(folder / f"{name}.jsonl", flags, 0o600)
        self._calls = itertools.count(1)

    def note(self, kind: Kind, phase: Phase = "ok", **fields: Any) -> None:
        """Write an event down, now."""
        event = Event(kind=kind, phase=phase, at=self.now(), process=self.name)
        line = msgspec.json.encode(msgspec.structs.replace(event, **fields))
        os.write(self._file, line + b"\n")

    def now(self) -> float:
        """The time, as `at` has it."""
        return time.monotonic()

    def call(self) -> int:
        """A number for a call of this process."""
        return next(self._calls)

    def close(self) -> None:
        """Nothing more comes."""
        os.close(self._file)


def read(folder: Path) -> list[Event]:
    """The events of all files, in the order of time; a last line cut short is left out."""
    decode = msgspec.json.Decoder(Event).decode
    lines = (
        line
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_bytes().splitlines(keepends=True)
    )
    return sorted((decode(line) for line in lines if line.endswith(b"\n")), key=_time)


def _time(event: Event) -> float:
    return event.at


def digest(content: Any) -> str:
    """A short hash of a JSON value, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
