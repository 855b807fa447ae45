"""Reading a folder: every text file becomes a document, every other file a stated reason."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from afk.messaging.edges.demo.mail import Document

# A letter may take one megabyte by default, and JSON can double a text full of quotes and newlines.
MAX_BYTES = 300_000
MAX_FILES = 2_000
# How many skipped files an error names.
_NAMED = 3
# Control characters that ordinary text files do hold: tab, newlines, form feed, escape.
_TEXT_CONTROLS = frozenset("\t\n\r\f\v\x1b")


class FolderError(Exception):
    """The folder cannot be read as a whole; the message is one line for the user."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is not researched, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What a folder holds, in path order."""

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...]


def read_folder(folder: Path, *, leave_out: Path | None = None) -> Reading:
    """Read the files below `folder`, hidden ones and those below `leave_out` aside.

    Raises `FolderError` if there is no such folder, or too much or nothing readable in it.
    """
    check_folder(folder)
    documents: list[Document] = []
    skipped: list[Skipped] = []
    for number, path in enumerate(_files(folder, leave_out)):
        if number == MAX_FILES:
            raise FolderError(f"more than {MAX_FILES} files in {folder}: name a smaller folder")
        found = read_file(path, path.relative_to(folder).as_posix())
        (documents if isinstance(found, Document) else skipped).append(found)  # type: ignore[arg-type]
    if not documents:
        raise FolderError(f"nothing readable in {folder}{_summary(skipped)}")
    return Reading(tuple(documents), tuple(skipped))


def check_folder(folder: Path) -> None:
    """Raise `FolderError` unless `folder` is a folder."""
    try:
        if not folder.exists():
            raise FolderError(f"no such folder: {folder}")
        if not folder.is_dir():
            raise FolderError(f"not a folder: {folder}")
        next(folder.iterdir(), None)
    except OSError as error:
        raise FolderError(f"cannot read {folder}: {_why(error)}") from error


def read_file(path: Path, name: str) -> Document | Skipped:
    """One file as a document under `name`, or the reason why it is none."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return Skipped(name.encode(errors="replace").decode(), "its name is not UTF-8")
    try:
        if not path.is_file():
            return Skipped(name, "not a regular file")
        # One byte more than allowed tells that there is more, whatever the size of the file.
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        return Skipped(name, f"not readable ({_why(error)})")
    return _document(name, data)


def _document(name: str, data: bytes) -> Document | Skipped:
    if len(data) > MAX_BYTES:
        return Skipped(name, f"larger than {MAX_BYTES // 1000} kB")
    if b"\0" in data:
        return Skipped(name, "a binary file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return Skipped(name, "not UTF-8")
    if not text.strip():
        return Skipped(name, "empty")
    if _controls(text) > len(text) // 50:
        return Skipped(name, "a binary file")
    return Document(path=name, digest=hashlib.sha256(data).hexdigest()[:32], text=text)


def _controls(text: str) -> int:
    return sum(1 for char in text if char < " " and char not in _TEXT_CONTROLS)


def _files(folder: Path, leave_out: Path | None) -> Iterator[Path]:
    """Every file below the folder in order, hidden ones and links to folders aside."""
    shut = leave_out.resolve() if leave_out else None
    for base, folders, files in os.walk(folder):
        seen = sorted(name for name in folders if name[0] != ".")
        folders[:] = [name for name in seen if Path(base, name).resolve() != shut]
        yield from (Path(base, name) for name in sorted(files) if name[0] != ".")


def _summary(skipped: list[Skipped]) -> str:
    if not skipped:
        return ""
    named = ", ".join(f"{s.path}: {s.reason}" for s in skipped[:_NAMED])
    return f" ({named}{', ...' if len(skipped) > _NAMED else ''})"


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
