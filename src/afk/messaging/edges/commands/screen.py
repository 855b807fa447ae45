"""What people read. Nothing of a message reaches the terminal raw: control characters are shown."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from afk.messaging import AgentMessage, MailboxStats

WIDTH = 60
UNBOUNDED = 10_000
"""Columns of what is no terminal: a program that reads lines wants them whole."""


def console() -> Console:
    """Standard output; no colours unless it is a terminal, no markup in what is printed."""
    made = Console(markup=False, highlight=False, emoji=False)
    if not made.is_terminal:
        made.width = UNBOUNDED
    return made


def printable(text: str, *, lines: bool = False) -> str:
    """Control characters as escapes; with `lines`, line breaks and tabs stay."""
    kept = "\n\t" if lines else ""
    return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in text)


def one_line(content: Any, width: int = WIDTH) -> str:
    """A content on one line, cut."""
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    shown = printable(text[: width * 2])
    return shown if len(shown) <= width else shown[: width - 3] + "..."


def whole(content: Any) -> str:
    """A content as it is, readable."""
    if isinstance(content, str):
        return printable(content, lines=True)
    return printable(json.dumps(content, ensure_ascii=False, indent=2), lines=True)


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """Columns; numbers to the right."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    body = [list(row) for row in rows]
    for number, title in enumerate(head):
        right = bool(body) and all(isinstance(row[number], (int, float)) for row in body)
        made.add_column(title, justify="right" if right else "left", no_wrap=True)
    for row in body:
        made.add_row(*(Text(printable(str(cell))) for cell in row))
    return made


def agents(stats: dict[str, MailboxStats]) -> Table:
    """A line for each mailbox, in the order given."""
    now = time.time()
    return table(
        ("agent", "pending", "leased", "scheduled", "dead", "oldest", "last seen"),
        [
            (
                name,
                each.pending["all"],
                each.leased,
                each.scheduled,
                each.dead,
                "" if each.oldest_age is None else span(each.oldest_age),
                "never" if each.last_seen is None else f"{span(now - each.last_seen)} ago",
            )
            for name, each in stats.items()
        ],
    )


def letter(message: AgentMessage) -> str:
    """A message with its fields, then its content."""
    fields = {
        "from": message.sender,
        "to": message.recipient,
        "id": message.id,
        "sent": moment(message.timestamp),
        "priority": message.priority,
        "correlation": message.correlation_id,
        "answers": message.causation_id,
        "thread": message.thread_id,
        "metadata": message.metadata and json.dumps(message.metadata, ensure_ascii=False),
    }
    lines = [f"{name}: {printable(str(value))}" for name, value in fields.items() if value]
    return "\n".join([*lines, "", whole(message.content)])


def span(seconds: float) -> str:
    """A time that passed, in its largest unit."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.1f} s"


def moment(at: float) -> str:
    """Local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
