"""What a mutant is, and the copy of the library that has it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
LIBRARY = ROOT / "src" / "afk" / "messaging"


@dataclass(frozen=True)
class Mutant:
    """A slip that someone could make. file: below afk/messaging; edits: (old, new), each old text
    once in it; caught_by: checks of the contract, or tests with their path."""

    store: str
    what: str
    file: str
    edits: tuple[tuple[str, str], ...]
    caught_by: tuple[str, ...]

    def text(self) -> str:
        """The file with the slip; ValueError if the library is not as the mutant knows it."""
        text = (LIBRARY / self.file).read_text("utf-8")
        for old, new in self.edits:
            if text.count(old) != 1:
                raise ValueError(f"{self.what}: {text.count(old)} times in {self.file}: {old!r}")
            text = text.replace(old, new)
        return text


def copy(folder: Path, mutant: Mutant | None) -> Path:
    """A copy of the library with the slip, or as it is: what PYTHONPATH is to begin with."""
    place = folder / "afk" / "messaging"
    shutil.copytree(LIBRARY, place)
    if mutant is not None:
        (place / mutant.file).write_text(mutant.text(), "utf-8")
    return folder
