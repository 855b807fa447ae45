"""What is told when the report is there: the trace, the report, the picture."""

from __future__ import annotations

from pathlib import Path

from afk.messaging import MessageBus
from afk.messaging.edges.demo import report
from afk.messaging.edges.demo.story import Story

MOST_LINES = 60
SHOWN_LINES = 40


async def tell(bus: MessageBus, workflow: str, story: Story, out: Path) -> str:
    """The closing text; the whole trace and the diagram are written below `out`."""
    trace = await bus.trace(workflow)
    tree, picture = str(trace), trace.mermaid()
    (out / "trace.txt").write_text(tree + "\n", encoding="utf-8")
    (out / "trace.mmd").write_text(picture + "\n", encoding="utf-8")
    return "\n".join(
        [
            "",
            abridge(tree, f"in {out / 'trace.txt'}"),
            "",
            abridge(picture, f"in {out / 'trace.mmd'}"),
            "",
            closing(story, out),
        ]
    )


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
    lines = [f"{len(names)} files in the report, {once}"]
    if story.killed:
        again = "its file was delivered again" if story.redelivered else "its file was done"
        lines.append(f"{story.killed.name} was killed in mid-work; {again}")
    elif not story.open:
        lines.append("no researcher had anything to do, so none was killed")
    return "\n".join([*lines, f"report: {path}"])
