"""`afk tail` and `afk top`: what happens now. Neither takes anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Group
from rich.live import Live
from rich.text import Text

from afk.messaging import MailboxStats, MessageBus
from afk.messaging.trace import Entry

from . import screen, shapes
from .place import UNSAID, Json, Place, on

commands = App(name="afk")

PAGE = 500


@commands.command
def tail(
    *,
    agent: str | None = None,
    correlation: str | None = None,
    start: Annotated[bool, Parameter(name="--from-start", negative=())] = False,
    follow: bool = True,
    every: float = 0.5,
    place: Place = UNSAID,
    as_json: Json = False,
) -> None:
    """Print messages as they are accepted, until interrupted.

    Examples
    --------
    afk tail --agent writer

    afk tail --from-start --no-follow --json

    Parameters
    ----------
    agent
        Only this agent's mail.
    correlation
        Only this chain.
    start
        Begin with what is there, not with what comes.
    follow
        Go on with what comes.
    every
        Seconds between two looks.
    as_json
        Print each as a line of JSON.
    """

    async def work(bus: MessageBus) -> None:
        cursor: str | None = None
        if not start:
            async for entry in _new(bus, agent, correlation, cursor):
                cursor = entry.cursor
        while True:
            async for entry in _new(bus, agent, correlation, cursor):
                cursor = entry.cursor
                _print(entry, as_json)
            if not follow:
                return
            await asyncio.sleep(every)

    on(place, work)


async def _new(
    bus: MessageBus, agent: str | None, correlation: str | None, after: str | None
) -> AsyncIterator[Entry]:
    while page := await bus.messages(
        agent=agent, correlation_id=correlation, after=after, limit=PAGE
    ):
        for entry in page:
            yield entry
        after = page[-1].cursor


def _print(entry: Entry, as_json: bool) -> None:
    if as_json:
        shapes.put(shapes.entry(entry))
        return
    sender = screen.printable(entry.message.sender) if entry.message else "?"
    content = screen.one_line(entry.message.content) if entry.message else "(gone)"
    at = screen.moment(entry.accepted_at)
    print(f"{at}  {entry.id}  {sender} -> {entry.agent}  {content}", flush=True)


@commands.command
def top(*, every: float = 1.0, place: Place = UNSAID) -> None:
    """Show all agents and their mail, live, busiest first, until interrupted.

    Parameters
    ----------
    every
        Seconds between two looks.
    """

    async def work(bus: MessageBus) -> None:
        before: dict[str, MailboxStats] = {}
        with Live(console=screen.console(), auto_refresh=False, screen=True) as live:
            while True:
                now = await bus.stats()
                live.update(Group(_sum(now, before), screen.agents(_busiest(now))), refresh=True)
                before = now
                await asyncio.sleep(every)

    on(place, work)


def _busiest(stats: dict[str, MailboxStats]) -> dict[str, MailboxStats]:
    return dict(sorted(stats.items(), key=lambda item: (-_open(item[1]), item[0])))


def _open(stats: MailboxStats) -> int:
    return stats.pending["all"] + stats.leased + stats.scheduled


def _sum(now: dict[str, MailboxStats], before: dict[str, MailboxStats]) -> Text:
    waiting, was = (sum(map(_open, each.values())) for each in (now, before or now))
    dead = sum(stats.dead for stats in now.values())
    return Text(
        f"{len(now)} agents, {waiting} open ({waiting - was:+d}), {dead} dead   Ctrl-C ends"
    )
