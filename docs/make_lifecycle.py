"""Draws the state diagram in lifecycle.md from the table the stores are checked against.

python docs/make_lifecycle.py
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from afk.messaging.lifecycle import TRANSITIONS

PAGE = Path(__file__).with_name("lifecycle.md")
START, END = "<!-- made by docs/make_lifecycle.py -->\n", "<!-- end -->"


def diagram() -> str:
    """The transitions as a Mermaid state diagram, an arrow for each pair of states."""
    events: dict[tuple[str | None, str], list[str]] = defaultdict(list)
    for (state, event), following in TRANSITIONS.items():
        events[state, following].append(event)
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [
        f"    {state or '[*]'} --> {following}: {' / '.join(labels)}"
        for (state, following), labels in events.items()
    ]
    left = {state for state, _ in TRANSITIONS}
    lines += [f"    {state} --> [*]" for state in sorted(set(TRANSITIONS.values()) - left)]
    return "\n".join([*lines, "```", ""])


def page(text: str) -> str:
    """The page's text with the diagram of today between its marks."""
    before, _, rest = text.partition(START)
    _, end, after = rest.partition(END)
    return before + START + diagram() + end + after


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
