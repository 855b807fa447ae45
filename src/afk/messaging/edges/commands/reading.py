"""`afk agents`, `stats`, `show`, `trace`: what is there, and what became of it."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from cyclopts import App, Parameter

from afk.messaging import MessageBus, Trace
from afk.messaging.trace import Entry

from . import screen, shapes
from .finding import find
from .place import BAD_INPUT, FAILED, UNSAID, Json, Place, fail, on

commands = App(name="afk")


@commands.command
def agents(*, place: Place = UNSAID, as_json: Json = False) -> None:
    """List the agents, and how much mail each has.

    Examples
    --------
    afk agents --url redis://localhost

    Parameters
    ----------
    as_json
        Print each as a line of JSON.
    """

    async def work(bus: MessageBus) -> None:
        stats = dict(sorted((await bus.stats()).items()))
        if as_json:
            for name, each in stats.items():
                shapes.put(shapes.mailbox(name, each))
        elif stats:
            screen.console().print(screen.agents(stats))
        else:
            print("no agents")

    on(place, work)


@commands.command
def stats(*, place: Place = UNSAID, as_json: Json = False) -> None:
    """Sum up the store: agents, messages by state, how well it keeps them.

    Parameters
    ----------
    as_json
        Print it as JSON.
    """

    async def work(bus: MessageBus) -> None:
        each = await bus.stats()
        ages = [stats.oldest_age for stats in each.values() if stats.oldest_age is not None]
        found: dict[str, Any] = {
            "agents": len(each),
            "pending": sum(stats.pending["all"] for stats in each.values()),
            "leased": sum(stats.leased for stats in each.values()),
            "scheduled": sum(stats.scheduled for stats in each.values()),
            "dead": sum(stats.dead for stats in each.values()),
            "oldest_age": max(ages, default=None),
            "durability": bus.durability,
        }
        if as_json:
            shapes.put(found)
        else:
            for name, value in found.items():
                print(f"{name.replace('_', ' ')}: {'-' if value is None else value}")

    on(place, work)


@commands.command
def show(id: str, *, place: Place = UNSAID, as_json: Json = False) -> None:
    """Print a message whole: its fields, its history, what it came from and led to.

    Of its attempts the first one's time, their number and the last error are kept.

    Parameters
    ----------
    id
        The message's id.
    as_json
        Print it as JSON.
    """

    async def work(bus: MessageBus) -> None:
        entry = await find(bus, id)
        message = entry.message
        chain = await bus.trace(message.correlation_id or id if message else id)
        led_to = [each for each in chain if each.message and each.message.causation_id == id]
        if as_json:
            shapes.put(shapes.entry(entry) | {"led_to": [each.id for each in led_to]})
            return
        print("\n".join(_told(entry, led_to)))

    on(place, work)


def _told(entry: Entry, led_to: list[Entry]) -> list[str]:
    lines = [f"state: {entry.state}", *_history(entry)]
    lines += [f"led to: {each.id} for {each.agent}, {each.state}" for each in led_to]
    if entry.message is None:
        return [f"id: {entry.id}", f"for: {entry.agent}", *lines, "", "(its body is gone)"]
    return [*lines, screen.letter(entry.message)]


def _history(entry: Entry) -> list[str]:
    """What is kept of it: the first attempt's time, the number of attempts, the last error."""
    lines = [f"accepted: {screen.moment(entry.accepted_at)}"]
    if entry.leased_at is not None:
        waited = screen.span(entry.leased_at - entry.accepted_at)
        lines.append(f"first claimed: {screen.moment(entry.leased_at)}, after {waited}")
    redriven = f", redriven {entry.redrives} time(s)" if entry.redrives else ""
    lines.append(f"attempts: {entry.attempts}{redriven}")
    if entry.error:
        lines.append(f"last error: {screen.printable(entry.error)}")
    if entry.settled_at is not None:
        worked = screen.span(entry.settled_at - (entry.leased_at or entry.accepted_at))
        lines.append(f"settled: {screen.moment(entry.settled_at)}, after {worked}")
    if entry.reason is not None:
        lines.append(f"reason: {entry.reason}")
    return lines


@commands.command
def trace(
    correlation: str,
    *,
    mermaid: Annotated[bool, Parameter(negative=())] = False,
    place: Place = UNSAID,
    as_json: Json = False,
) -> None:
    """Print a chain of messages as a tree, with the times each waited and was worked on.

    Examples
    --------
    afk trace 019aba5a1b2c00000000014f2a9c3d7e --mermaid > chain.mmd

    Parameters
    ----------
    correlation
        The correlation id; the id of the first message is one.
    mermaid
        Print a Mermaid sequence diagram.
    as_json
        Print it as JSON.
    """
    if mermaid and as_json:
        fail("--mermaid and --json are two formats; choose one", BAD_INPUT)

    async def work(bus: MessageBus) -> None:
        chain = await _chain(bus, correlation)
        if as_json:
            states = Counter(entry.state for entry in chain)
            messages = [_timed(entry) for entry in chain]
            shapes.put(
                {"correlation_id": chain.correlation_id, "states": states} | {"messages": messages}
            )
        else:
            print(chain.mermaid() if mermaid else chain)

    on(place, work)


async def _chain(bus: MessageBus, correlation: str) -> Trace:
    """The chain under this id, or that of the message with this id."""
    message = await bus.get(correlation)
    chain = await bus.trace(message.correlation_id or correlation if message else correlation)
    if not len(chain):
        fail(f"no message has the correlation id {correlation!r}", FAILED)
    return chain


def _timed(entry: Entry) -> dict[str, Any]:
    """waiting, working: seconds until it was first claimed, and from then until it was settled."""
    waiting = None if entry.leased_at is None else entry.leased_at - entry.accepted_at
    over = entry.leased_at is not None and entry.settled_at is not None
    working = entry.settled_at - entry.leased_at if over else None  # type: ignore[operator]
    return shapes.entry(entry) | {"waiting": waiting, "working": working}
