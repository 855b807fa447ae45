"""A line for each thing a person has changed, in a file of that person's."""

from __future__ import annotations

import getpass
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .place import Place, url_of


def path() -> Path:
    """$XDG_STATE_HOME/afk/audit.jsonl, or ~/.local/state/afk/audit.jsonl."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "afk" / "audit.jsonl"


def note(action: str, place: Place, which: Any, ids: tuple[str, ...], changed: int) -> None:
    """Append what was done, by whom, where, and to how many."""
    line = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "user": getpass.getuser(),
        "action": action,
        "store": _without_password(url_of(place)),
        "filter": {name: value for name, value in asdict(which).items() if value},
        "ids": ids,
        "changed": changed,
    }
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(0o600)
    with file.open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def _without_password(url: str) -> str:
    """The URL up to its query, without what stands before an @: either may hold a secret."""
    scheme, _, rest = url.partition("?")[0].partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
