"""What is wrong with a store, or could be, and what mends it."""

from __future__ import annotations

import importlib
import time
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl, urlsplit

from afk.messaging import MessageBus, MessagingError, connect
from afk.messaging.connect import NATS, POSTGRES, REDIS
from afk.messaging.edges.doctor.finding import Finding, bad, good, warning

FORGOTTEN = 600.0
"""Seconds a consumer was not seen while mail waits: it is likely not running."""
AT_MOST = 5
"""Agents of one kind that are named; of the others the number."""


async def diagnose(url: str) -> AsyncIterator[Finding]:
    """Findings, as they are made; the store is opened as any process would."""
    try:
        async with connect(url) as bus:
            await bus.agents()
            yield good(f"the store opens; accepted messages survive: {_SURVIVES[bus.durability]}")
            async for finding in _kept(bus):
                yield finding
            async for finding in _mail(bus):
                yield finding
    except MessagingError as error:
        yield bad(f"the store does not open: {error}", "start it, or correct the URL")
    async for finding in _own(url):
        yield finding


_SURVIVES = {
    "memory": "nothing for sure",
    "process": "kill -9 of any process, not power loss",
    "disk": "power loss",
}


async def _kept(bus: MessageBus) -> AsyncIterator[Finding]:
    if bus.durability != "disk":
        yield warning(
            f"durability is {bus.durability!r}",
            "if power loss matters, set the store to sync each write (see its page in the docs)",
        )
    if bus.capabilities.asserted:
        yield warning(
            "the durability is what the URL says; the server does not tell its own setting",
            "make sure that it is true",
        )


async def _mail(bus: MessageBus) -> AsyncIterator[Finding]:
    now = time.time()
    stats = await bus.stats()
    idle = [
        name
        for name, each in stats.items()
        if each.pending["all"] and now - (each.last_seen or 0.0) > FORGOTTEN
    ]
    if idle:
        yield warning(f"mail waits, and nobody comes for it: {_named(idle)}", "start its consumer")
    dead = {name: each.dead for name, each in stats.items() if each.dead}
    if dead:
        yield warning(
            f"{sum(dead.values())} dead letter(s), of {_named([*dead])}", "see: afk dead list"
        )
    if not idle and not dead:
        yield good(f"{len(stats)} agent(s); no mail is forgotten, none is dead")


def _named(names: list[str]) -> str:
    more = len(names) - AT_MOST
    shown = ", ".join(sorted(names)[:AT_MOST])
    return f"{shown} and {more} more" if more > 0 else shown


async def _own(url: str) -> AsyncIterator[Finding]:
    """What only this kind of store can have."""
    scheme = urlsplit(url).scheme
    kinds = {"sqlite": ("sqlite",), "redis": REDIS, "postgres": POSTGRES, "nats": NATS}
    for kind, schemes in kinds.items():
        if scheme in schemes:
            look = importlib.import_module(f"afk.messaging.edges.doctor.{kind}").look
            try:
                async for finding in look(url, dict(parse_qsl(urlsplit(url).query))):
                    yield finding
            except (MessagingError, OSError) as error:
                yield bad(f"the store could not be looked at: {error}", "see above")
