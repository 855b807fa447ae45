"""What the newsroom's agents tell each other: one struct for each kind of mail."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

COORDINATOR, RESEARCHER, WRITER, EDITOR = "coordinator", "researcher", "writer", "editor"
MAILBOXES = (COORDINATOR, RESEARCHER, WRITER, EDITOR)


class Mail(msgspec.Struct, frozen=True, tag_field="kind", tag=str.lower):
    """The root of all kinds; on the wire `kind` is the class's name in lower case."""


class Document(Mail, frozen=True):
    """Coordinator to researcher: read this file, named by its path inside the folder."""

    path: str
    digest: str
    text: str


class Term(msgspec.Struct, frozen=True):
    """A word of a file, how often it stands there and how telling it is (more is more telling)."""

    word: str
    count: int
    weight: float


class Finding(Mail, frozen=True):
    """Researcher to writer: what one file says, in its own words."""

    path: str
    digest: str
    title: str
    headings: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    terms: tuple[Term, ...] = ()
    word_count: int = 0
    sentence_count: int = 0


class Source(msgspec.Struct, frozen=True):
    """A file a report must use: its path and the digest of its content."""

    path: str
    digest: str


class Commission(Mail, frozen=True):
    """Coordinator to writer: write one report about exactly these files."""

    edition: str
    title: str
    sources: tuple[Source, ...]


class Draft(Mail, frozen=True):
    """Writer to editor: a first version lies on the shelf."""

    edition: str
    report: str


class Revise(Mail, frozen=True):
    """Editor to writer, as a request: the same report again, with these wishes met."""

    edition: str
    wishes: tuple[str, ...]


class Revised(Mail, frozen=True):
    """Writer to editor, as the answer: the revision lies on the shelf."""

    edition: str
    report: str


class Published(Mail, frozen=True):
    """Editor to coordinator: this edition is finished and every file is in it once."""

    edition: str
    report: str
    files: int


def pack(mail: Mail) -> dict[str, Any]:
    """The mail as JSON content, its kind last: a trace shows how a content begins."""
    content: dict[str, Any] = msgspec.to_builtins(mail)
    kind = content.pop("kind")
    return {**content, "kind": kind}


def unpack(content: object, kind: type[T]) -> T:
    """The content as this kind of mail; `msgspec.ValidationError` if it is another."""
    return msgspec.convert(content, kind)
