"""A workflow as it happened: messages under one correlation id, in causal order."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from .lifecycle import DeadReason, State
from .log import printable
from .messages import AgentMessage
from .records import decode, letter, wire
from .store import Row


class Entry(Struct, frozen=True, kw_only=True):
    """A message and what became of it. Times in seconds since the epoch. attempts: since it was
    last redriven; error: the last one; cursor: goes on from here in `bus.messages(after=...)`."""

    id: str
    agent: str
    message: AgentMessage | None
    """None when it cannot be read, or history has let go of it."""
    state: State
    attempts: int
    accepted_at: float
    leased_at: float | None
    settled_at: float | None
    reason: DeadReason | None = None
    error: str = ""
    redrives: int = 0
    cursor: str


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A message that will not be delivered, unless redriven. `cursor` goes on from here in
    `bus.dead_letters(after=...)`."""

    id: str
    agent: str
    message: AgentMessage | None
    """None when it cannot be read; `raw` is what there is."""
    raw: bytes
    reason: DeadReason
    error: str
    attempts: int
    failed_at: float
    redrives: int
    cursor: str


def message_of(row: Row) -> AgentMessage | None:
    """The row's message, if its body is there and readable."""
    if row.body is None:
        return None
    try:
        return letter(decode(row.body), row.mailbox)
    except ValueError:
        return None


def entry_of(row: Row) -> Entry:
    """The public view of a row."""
    return Entry(
        id=row.id,
        agent=row.mailbox,
        message=message_of(row),
        state=row.state,
        attempts=row.attempt,
        accepted_at=row.accepted_at,
        leased_at=row.leased_at,
        settled_at=row.settled_at,
        reason=row.reason,
        error=row.error,
        redrives=row.redrives,
        cursor=str(row.cursor),
    )


def dead_letter_of(row: Row) -> DeadLetter:
    """The public view of a dead row."""
    return DeadLetter(
        id=row.id,
        agent=row.mailbox,
        message=message_of(row),
        raw=b"" if row.body is None else wire(row.body),
        reason=row.reason or "rejected",
        error=row.error,
        attempts=row.attempt,
        failed_at=row.settled_at or row.accepted_at,
        redrives=row.redrives,
        cursor=str(row.cursor),
    )


class Trace:
    """The chain of messages of one correlation id: `len`, iteration, `str()` (a tree),
    `mermaid()` (a sequence diagram)."""

    def __init__(self, correlation_id: str, entries: list[Entry]) -> None:
        self.correlation_id = correlation_id
        self._depth: dict[str, int] = {}
        self.entries = self._ordered(entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def _ordered(self, entries: list[Entry]) -> list[Entry]:
        """Each message after its cause, siblings as they were accepted."""
        known = {entry.id for entry in entries}
        children: dict[str | None, list[Entry]] = {}
        for entry in entries:
            cause = entry.message.causation_id if entry.message else None
            parent = cause if cause in known and cause != entry.id else None
            children.setdefault(parent, []).append(entry)
        ordered: list[Entry] = []
        stack = [(entry, 0) for entry in reversed(children.get(None, []))]
        while stack:
            entry, depth = stack.pop()
            if entry.id in self._depth:
                continue
            self._depth[entry.id] = depth
            ordered.append(entry)
            stack.extend((child, depth + 1) for child in reversed(children.get(entry.id, [])))
        # Causes that form a circle have no root; they are shown all the same.
        rest = [entry for entry in entries if entry.id not in self._depth]
        self._depth.update({entry.id: 0 for entry in rest})
        return ordered + rest

    def __str__(self) -> str:
        lines = [f"{printable(self.correlation_id)}: {len(self)} message(s)"]
        lines += ["  " * (self._depth[entry.id] + 1) + _line(entry) for entry in self.entries]
        return "\n".join(lines)

    def mermaid(self) -> str:
        """A Mermaid sequence diagram of the chain: downwards is time."""
        entries = sorted(self.entries, key=lambda entry: entry.accepted_at)
        agents = dict.fromkeys(name for entry in entries for name in (_sender(entry), entry.agent))
        short = {name: f"p{number}" for number, name in enumerate(agents)}
        lines = ["sequenceDiagram"]
        lines += [f"    participant {short[name]} as {_plain(name)}" for name in agents]
        for entry in entries:
            sender, agent = short[_sender(entry)], short[entry.agent]
            arrow = "-->>" if entry.message and entry.message._context.kind == "response" else "->>"
            lines.append(f"    {sender}{arrow}{agent}: {_plain(_content(entry, 60))}")
            if entry.state != "done" or entry.attempts > 1:
                tries = f", attempt {entry.attempts}" if entry.attempts > 1 else ""
                lines.append(f"    Note over {agent}: {entry.state}{tries}")
        return "\n".join(lines)


def _sender(entry: Entry) -> str:
    return entry.message.sender if entry.message else "?"


def _line(entry: Entry) -> str:
    tries = f", attempt {entry.attempts}" if entry.attempts > 1 else ""
    waited = _span(entry.accepted_at, entry.leased_at, "waited")
    # From the first attempt to the last: with the pauses between them it is no working time.
    took = "worked" if entry.attempts == 1 else "tried for"
    worked = _span(entry.leased_at, entry.settled_at, took)
    way = f"{_sender(entry)} -> {entry.agent}"
    return printable(f"{way}  {entry.state}{tries}{waited}{worked}  {_content(entry, 48)}")


def _span(start: float | None, end: float | None, name: str) -> str:
    if start is None or end is None:
        return ""
    return f", {name} {max(0.0, end - start):.3f} s"


def _content(entry: Entry, width: int) -> str:
    """The content on one line, cut, with control characters shown as escapes."""
    content = "(gone)" if entry.message is None else entry.message.content
    import json

    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    shown = printable(text[: width * 2])
    return shown if len(shown) <= width else shown[: width - 3] + "..."


def _plain(text: str) -> str:
    """Text that cannot end a Mermaid statement or be read as markup."""
    shown = printable(text).replace('"', "'")
    return "".join(f"#{ord(c)};" if c in "#;<>&%`" else c for c in shown)
