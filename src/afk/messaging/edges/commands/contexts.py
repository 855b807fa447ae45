"""Names for URLs, in a file that only its owner can read: a URL may hold a password."""

from __future__ import annotations

import json
import os
from pathlib import Path


class ContextError(Exception):
    """There is no such context; says which there are."""


def folder() -> Path:
    """Where the file is: $XDG_CONFIG_HOME/afk, or ~/.config/afk."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "afk"


def load() -> tuple[str | None, dict[str, str]]:
    """The one in use, and all of them by name."""
    path = folder() / "contexts.json"
    if not path.exists():
        return None, {}
    try:
        kept = json.loads(path.read_text("utf-8"))
        return kept["current"], dict(kept["contexts"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ContextError(f"{path} cannot be read: {error}; mend it or delete it") from None


def save(current: str | None, known: dict[str, str]) -> None:
    """Write them, all at once."""
    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    fresh = place / f"contexts.{os.getpid()}.json"
    fresh.touch(0o600)
    fresh.write_text(json.dumps({"current": current, "contexts": known}, indent=1), "utf-8")
    fresh.replace(place / "contexts.json")


def url_of(name: str | None) -> str:
    """The URL of this context, or of the one in use."""
    current, known = load()
    chosen = name if name is not None else current
    if chosen is None:
        raise ContextError(
            "which store? give --url, set AFK_MESSAGING_URL, or: afk context set NAME URL"
        )
    if chosen not in known:
        names = ", ".join(sorted(known)) or "none yet"
        raise ContextError(f"no context {chosen!r}; there are: {names}")
    return known[chosen]
