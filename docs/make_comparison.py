"""Writes the table in stores/index.md from what the stores are proved to give.

Each column is a store, as tests/contract has it checked; its flags are in the suite, which
fails where one is not honest.

python docs/make_comparison.py
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from afk.messaging.store import Capabilities
from afk.messaging.testing.promises import PROMISES, kept

DOCS = Path(__file__).parent
PAGE = DOCS / "stores" / "index.md"
START, END = "<!-- made by docs/make_comparison.py -->\n", "<!-- end -->"
CAN = {
    "shared": "Several processes can use it at once",
    "outbox": "A send can be part of your own transaction",
}


def stores() -> dict[str, list[Capabilities]]:
    """What each store gives, in every way the suite sets it up, strongest durability last."""
    given: dict[str, list[Capabilities]] = {}
    for subject in _subjects().SUBJECTS:
        given.setdefault(subject.title, []).append(subject.capabilities)
    return given


def _subjects() -> ModuleType:
    path = DOCS.parent / "tests" / "contract" / "subjects.py"
    spec = importlib.util.spec_from_file_location("subjects", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table() -> str:
    """Promises by stores, as Markdown."""
    given = stores()
    lines = [_row("", *given), _row(*["---"] * (len(given) + 1))]
    for promise in PROMISES:
        title = f"{promise.number}. {promise.title}"
        lines.append(_row(title, *[kept(promise, each) for each in given.values()]))
    for flag, title in CAN.items():
        words = ["yes" if getattr(each[0], flag) else "no" for each in given.values()]
        lines.append(_row(title, *words))
    return "\n".join([*lines, ""])


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def page(text: str) -> str:
    """The page's text with the table of today between its marks."""
    before, _, rest = text.partition(START)
    _, end, after = rest.partition(END)
    return before + START + table() + end + after


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
