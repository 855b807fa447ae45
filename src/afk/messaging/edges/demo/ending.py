"""What is told when the report is there: the trace, the report, the picture."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from afk.messaging import Trace
from afk.messaging.edges.demo import report
from afk.messaging.edges.demo.story import Story
from afk.messaging.edges.demo.texts import number_of

MOST_LINES = 60
SHOWN_LINES = 40


def tell(trace: Trace, story: Story, out: Path, console: Console) -> None:
    """Print it all; the whole tree and the whole diagram are written below `out`."""
    for name, text in (("trace.txt", str(trace)), ("trace.mmd", trace.mermaid())):
        path = out / name
        path.write_text(text + "\n", encoding="utf-8")
        shown = Text("\n" + abridge(text, f"in {path}"))
        if console.is_terminal:
            console.print(shown, no_wrap=True, overflow="ellipsis")
        else:
            console.print(shown, soft_wrap=True)
    console.print(Text("\n" + closing(story, out)), soft_wrap=True)


def abridge(text: str, where: str) -> str:
    """The text, or its beginning and end and where the rest is."""
    lines = text.splitlines()
    if len(lines) <= MOST_LINES:
        return text
    left = len(lines) - SHOWN_LINES
    head, tail = lines[: SHOWN_LINES // 2], lines[-SHOWN_LINES // 2 :]
    return "\n".join([*head, f"    ... {left} more lines {where} ...", *tail])


def closing(story: Story, out: Path) -> str:
    """What was done, and where the report lies."""
    path = out / story.report
    names = report.sections(path.read_text(encoding="utf-8"))
    once = "each used exactly once" if len(names) == len(set(names)) else "NOT each used once"
    count = number_of(len(names), "file")
    return f"{count} in the report, {once}\n{_victim(story)}\nreport: {path}"


def _victim(story: Story) -> str:
    if story.killed is None:
        why = "was caught in mid-work" if story.open else "had anything to do"
        return f"no researcher {why}, so none was killed"
    again = " and delivered again" if story.killed.path in story.redelivered else ""
    return f"{story.killed.name} was killed in mid-work; its file was kept{again}"
