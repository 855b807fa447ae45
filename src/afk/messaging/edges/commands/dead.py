"""`afk dead`: what was given up on, looked at and mended."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import App, Parameter

from afk.messaging import DeadLetter, MessageBus
from afk.messaging.lifecycle import DeadReason

from . import audit, screen, shapes
from .place import BAD_INPUT, FAILED, UNSAID, Json, Place, fail, on

commands = App(name="dead", help="List, show, redrive or discard dead letters.")

PAGE = 500
Flag = Parameter(negative=())


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Which:
    """Which dead letters; every filter narrows.

    Parameters
    ----------
    agent
        Of this agent's mail.
    reason
        That died for this reason.
    since
        That died within this time: 90s, 15m, 2h, 3d.
    where
        Whose message has this value: content.customer=7, sender=ada, metadata.run="x". The value
        is JSON, or else text; a number in the path is a place in a list. May be given again.
    """

    agent: str | None = None
    reason: DeadReason | None = None
    since: str | None = None
    where: Annotated[tuple[str, ...], Parameter(negative=())] = ()


async def matching(bus: MessageBus, which: Which) -> AsyncIterator[DeadLetter]:
    """Dead letters in the order they died."""
    begun = time.time()
    oldest = None if which.since is None else begun - _seconds(which.since)
    wanted = [_condition(text) for text in which.where]
    after = None
    while page := await bus.dead_letters(which.agent, reason=which.reason, after=after, limit=PAGE):
        after = page[-1].cursor
        for letter in page:
            young = oldest is None or letter.failed_at >= oldest
            if young and all(_holds(letter, path, value) for path, value in wanted):
                yield letter


def _seconds(text: str) -> float:
    try:
        return float(text[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[text[-1:]]
    except (KeyError, ValueError):
        fail(f"--since {text!r} is no time; write 90s, 15m, 2h or 3d", BAD_INPUT)


def _condition(text: str) -> tuple[list[str], Any]:
    path, equals, value = text.partition("=")
    names = path.split(".")
    if not equals or names[0] not in {"content", "payload", "metadata", "sender"}:
        fail(
            f"--where {text!r}: write content.key=value, metadata.key=value or sender=name",
            BAD_INPUT,
        )
    try:
        return names, json.loads(value)
    except ValueError:
        return names, value


def _holds(letter: DeadLetter, path: list[str], value: Any) -> bool:
    if letter.message is None:
        return False
    name, *keys = path
    found: Any = getattr(letter.message, "content" if name == "payload" else name)
    for key in keys:
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            return False
    return bool(found == value and isinstance(found, bool) == isinstance(value, bool))


@commands.command(name="list")
def show_all(
    *, which: Which = Which(), limit: int = 100, place: Place = UNSAID, as_json: Json = False
) -> None:
    """List dead letters, those that died first first.

    Examples
    --------
    afk dead list --agent writer --reason exhausted --since 2h

    Parameters
    ----------
    limit
        How many at the most.
    as_json
        Print each as a line of JSON.
    """

    async def work(bus: MessageBus) -> None:
        found = []
        async for letter in matching(bus, which):
            found.append(letter)
            if len(found) == limit:
                break
        if as_json:
            for letter in found:
                shapes.put(shapes.letter(letter))
        elif not found:
            print("no dead letters")
        else:
            head = ("id", "agent", "reason", "attempts", "died", "error", "content")
            screen.console().print(screen.table(head, map(_row, found)))

    on(place, work)


def _row(letter: DeadLetter) -> tuple[object, ...]:
    content = screen.one_line(letter.message.content, 40) if letter.message else "(unreadable)"
    ago = f"{screen.span(time.time() - letter.failed_at)} ago"
    error = screen.one_line(letter.error, 40)
    return letter.id, letter.agent, letter.reason, letter.attempts, ago, error, content


@commands.command
def show(id: str, *, place: Place = UNSAID, as_json: Json = False) -> None:
    """Print a dead letter whole.

    Parameters
    ----------
    id
        The message's id.
    as_json
        Print it as JSON.
    """

    async def work(bus: MessageBus) -> None:
        async for letter in matching(bus, Which()):
            if letter.id == id:
                break
        else:
            fail(f"no dead letter {id!r}", FAILED)
        if as_json:
            shapes.put(shapes.letter(letter))
            return
        print(f"agent: {letter.agent}\nreason: {letter.reason}\nattempts: {letter.attempts}")
        print(f"redrives: {letter.redrives}\ndied: {screen.moment(letter.failed_at)}")
        print(f"error: {screen.printable(letter.error)}")
        if letter.message is not None:
            print(screen.letter(letter.message))
        else:
            print(f"\n{screen.whole(letter.raw.decode('utf-8', 'backslashreplace'))}")

    on(place, work)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Care:
    """Before something is done.

    Parameters
    ----------
    everything
        All dead letters: needed where no id and no filter is given.
    dry_run
        Only say how many would be changed.
    yes
        Do not ask.
    """

    everything: Annotated[bool, Parameter(name="--all", negative=())] = False
    dry_run: Annotated[bool, Flag] = False
    yes: Annotated[bool, Flag] = False


@commands.command
def redrive(
    *ids: str,
    which: Which = Which(),
    care: Care = Care(),
    place: Place = UNSAID,
    as_json: Json = False,
) -> None:
    """Have dead letters delivered again, with all their attempts.

    Examples
    --------
    afk dead redrive --agent writer --reason exhausted

    afk dead redrive --where content.customer=7 --dry-run

    Parameters
    ----------
    ids
        The messages; or give filters.
    as_json
        Print what was done as JSON.
    """
    _change("redrive", lambda bus: bus.redrive, ids, which, care, place, as_json=as_json)


@commands.command
def discard(
    *ids: str,
    which: Which = Which(),
    care: Care = Care(),
    place: Place = UNSAID,
    as_json: Json = False,
) -> None:
    """Let go of dead letters for good.

    Examples
    --------
    afk dead discard --reason expired --yes

    Parameters
    ----------
    ids
        The messages; or give filters.
    as_json
        Print what was done as JSON.
    """
    _change("discard", lambda bus: bus.discard, ids, which, care, place, as_json=as_json)


Change = Callable[[MessageBus], Callable[..., Awaitable[int]]]


def _change(
    verb: str,
    change: Change,
    ids: tuple[str, ...],
    which: Which,
    care: Care,
    place: Place,
    *,
    as_json: bool,
) -> None:
    if not (ids or care.everything or which != Which()):
        fail("which ones? give ids, a filter, or --all", BAD_INPUT)

    async def work(bus: MessageBus) -> int:
        found = [letter.id async for letter in matching(bus, which) if not ids or letter.id in ids]
        changed = 0
        if not care.dry_run and found:
            if not (care.yes or _agreed(verb, len(found))):
                fail("nothing was changed", FAILED)
            for some in _some(found):
                changed += await change(bus)(*some)
            audit.note(verb, place, which, ids, changed)
        if as_json:
            shapes.put({"action": verb, "matched": len(found), "changed": changed})
        elif care.dry_run:
            print(f"{len(found)} dead letter(s) would be changed by {verb}")
        else:
            print(f"{verb}: {changed} of {len(found)} dead letter(s)")
        return 0 if found or not ids else FAILED

    on(place, work)


def _some(ids: list[str]) -> list[list[str]]:
    return [ids[first : first + PAGE] for first in range(0, len(ids), PAGE)]


def _agreed(verb: str, count: int) -> bool:
    """Ask who sits at the terminal; without one the answer is no."""
    if not sys.stdin.isatty():
        fail(f"{verb} would change {count} dead letter(s); say --yes", BAD_INPUT)
    return input(f"{verb} {count} dead letter(s)? [y/N] ").strip().lower() in {"y", "yes"}
