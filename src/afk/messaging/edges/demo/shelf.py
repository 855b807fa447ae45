"""The output folder: what the writer and the coordinator keep outside the store.

A handler may run again for the same message (its process can die after the effect and before the
ack), so every write here is idempotent: the same mail writes the same file, in one atomic step.
That makes "at least once" look like once for files, without a transaction and on any store.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import TypeVar

import msgspec

from afk.messaging.edges.demo.mail import Commission, Finding, Published, Source

T = TypeVar("T")


class ShelfError(Exception):
    """The output folder cannot be used; the message is one line for the user."""


class Shelf:
    """One output folder. Its layout:

    newsroom.db                   the store, unless a URL names another
    desk.id                       what this folder is called in the store
    findings/<digest>.json        one for each file and content
    editions/<edition>.json       what a report must be about
    editions/<edition>.done.json  that it is published
    reports/<edition>.draft.md, reports/<edition>.md
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def log(self) -> Path:
        """Where the agents' own words go."""
        return self.root / "agents.log"

    def open(self) -> str:
        """Make the folder and return its desk id, drawn once.

        Whoever deletes the folder gets a new id, and with it new keys: the store then does not
        take a file for done whose finding is gone.
        """
        try:
            for name in ("findings", "editions", "reports"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            desk = self.root / "desk.id"
            if not desk.exists():
                self._write(desk, secrets.token_hex(4).encode())
            return desk.read_text(encoding="ascii").strip()
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise ShelfError(f"cannot write to {self.root}: {why}") from error

    def keep_finding(self, finding: Finding) -> None:
        """Keep it under its file's path and content; twice is once."""
        self._write(self._finding(Source(finding.path, finding.digest)), _encode(finding))

    def findings(self, sources: tuple[Source, ...]) -> tuple[Finding, ...] | None:
        """The findings of exactly these files, None while one is missing."""
        # Findings come in about the order of the sources, so a missing one is met soon this way.
        if not all(self._finding(source).exists() for source in reversed(sources)):
            return None
        return tuple(_decode(self._finding(source), Finding) for source in sources)

    def keep_commission(self, commission: Commission) -> None:
        """Remember what the edition must be about; twice is once."""
        self._write(self._edition(commission.edition), _encode(commission))

    def commission(self, edition: str) -> Commission:
        """What the edition must be about."""
        return _decode(self._edition(edition), Commission)

    def commissions(self) -> list[Commission]:
        """Every edition so far."""
        editions = (self.root / "editions").glob("*.json")
        names = sorted(p.stem for p in editions if not p.name.endswith(".done.json"))
        return [self.commission(name) for name in names]

    def keep_report(self, name: str, text: str) -> str:
        """Keep the report; returns its path below the output folder."""
        self._write(self.root / "reports" / name, text.encode())
        return f"reports/{name}"

    def report(self, path: str) -> str:
        """The text of a report kept before."""
        return (self.root / path).read_text(encoding="utf-8")

    def publish(self, published: Published) -> None:
        """Remember that the edition is finished; twice is once."""
        self._write(self._edition(f"{published.edition}.done"), _encode(published))

    def published(self, edition: str) -> Published | None:
        """The finished edition, None if it is not finished yet."""
        path = self._edition(f"{edition}.done")
        if not path.exists():
            return None
        found = _decode(path, Published)
        if not (self.root / found.report).is_file():
            raise ShelfError(f"{found.report} is gone: remove {self.root} to start over")
        return found

    def _finding(self, source: Source) -> Path:
        name = hashlib.sha256(f"{source.path}\n{source.digest}".encode()).hexdigest()[:32]
        return self.root / "findings" / f"{name}.json"

    def _edition(self, name: str) -> Path:
        return self.root / "editions" / f"{name}.json"

    def _write(self, path: Path, data: bytes) -> None:
        """All or nothing: a process killed here leaves the old file or the new one."""
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        scratch.write_bytes(data)
        scratch.replace(path)


def _decode(path: Path, kind: type[T]) -> T:
    return msgspec.json.decode(path.read_bytes(), type=kind)


def _encode(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
