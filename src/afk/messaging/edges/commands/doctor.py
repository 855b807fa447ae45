"""`afk doctor`."""

from __future__ import annotations

import asyncio
import sys

from cyclopts import App
from msgspec import to_builtins

from afk.messaging.edges.doctor import diagnose

from . import screen, shapes
from .place import FAILED, UNSAID, Json, Place, url_of

commands = App(name="afk")

MARKS = {"ok": "ok  ", "warning": "warn", "bad": "BAD "}


@commands.command
def doctor(*, place: Place = UNSAID, as_json: Json = False) -> None:
    """Look for what is wrong with the store, and say what mends it.

    Exit code 1 if something does harm; warnings do not count.

    Parameters
    ----------
    as_json
        Print each finding as a line of JSON.
    """
    url = url_of(place)

    async def look() -> bool:
        harm = False
        async for finding in diagnose(url):
            harm |= finding.level == "bad"
            if as_json:
                shapes.put(to_builtins(finding))
                continue
            print(f"{MARKS[finding.level]}  {screen.printable(finding.what)}")
            if finding.fix:
                print(f"      -> {screen.printable(finding.fix)}")
        return harm

    if asyncio.run(look()):
        sys.exit(FAILED)
