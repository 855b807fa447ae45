"""The faults: of the way between a client and the server, and of the server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from afk.messaging.testing.history import SERVER
from proof.proxy import Proxy
from proof.trial import Daemons

from .hosts import Host
from .team import Act, Fault

ProxyFault = Callable[[Proxy, random.Random, float], Fault]
"""Made for a proxy, by chance, to last so many seconds."""


def long(chance: random.Random) -> float:
    """Seconds: shorter than the patience of a call mostly, longer than a lease now and then."""
    return chance.choices(
        (chance.uniform(0.2, 1.0), chance.uniform(1.0, 3.0), chance.uniform(3.0, 8.0)),
        weights=(70, 20, 10),
    )[0]


def brief(chance: random.Random) -> float:
    """Seconds, for rounds that must not take long."""
    return chance.uniform(0.2, 1.3)


def act(*steps: Callable[[], None]) -> Act:
    """The steps, which take no time to speak of, as an act."""

    async def do() -> None:
        for step in steps:
            step()

    return do


# -- of a proxy --------------------------------------------------------------------------


def partition(proxy: Proxy, chance: random.Random, lasts: float) -> Fault:
    """Silence both ways; then what was held back arrives, or the connections are reset."""
    return Fault("partition", lasts, act(proxy.freeze), _end(proxy, chance))


def deaf(proxy: Proxy, chance: random.Random, lasts: float) -> Fault:
    """Calls do not get there, answers come back."""
    strike = act(lambda: proxy.freeze(to_client=False))
    return Fault("lost calls", lasts, strike, _end(proxy, chance))


def mute(proxy: Proxy, chance: random.Random, lasts: float) -> Fault:
    """Calls get there, answers do not come back."""
    strike = act(lambda: proxy.freeze(to_server=False))
    return Fault("lost answers", lasts, strike, _end(proxy, chance))


def mute_for_long(proxy: Proxy, chance: random.Random, _: float) -> Fault:
    """Longer than any call waits."""
    return mute(proxy, chance, 3.0)


def _end(proxy: Proxy, chance: random.Random) -> Act:
    """What was held back arrives, or is lost with its connection."""
    return act(proxy.heal) if chance.random() < 0.5 else act(proxy.reset, proxy.heal)


def cut(proxy: Proxy, chance: random.Random, lasts: float) -> Fault:
    """Reset after some bytes of answers, new connections too; sometimes all at once."""
    count = chance.choice((0, chance.randrange(1, 50), chance.randrange(50, 3000)))
    return Fault("resets", lasts, act(lambda: proxy.cut_after(count)), act(proxy.heal))


def slow(proxy: Proxy, chance: random.Random, lasts: float) -> Fault:
    """Each way takes 20 to 300 ms, for some KiB."""
    delay, chunk = chance.uniform(0.02, 0.3), chance.choice((512, 4096, 2**16))
    return Fault("slowness", lasts, act(lambda: proxy.slow(delay, chunk)), act(proxy.heal))


def refused(proxy: Proxy, chance: random.Random, lasts: float) -> Fault:
    """Nobody listens."""
    return Fault("refusals", lasts, act(proxy.refuse), act(proxy.heal))


def forgotten(proxy: Proxy, chance: random.Random, lasts: float) -> Fault:
    """The connections there are stay silent for ever; new ones work at once, or later."""
    if chance.random() < 0.5:
        return Fault(
            "forgotten connections", lasts, act(proxy.forget, proxy.freeze), act(proxy.heal)
        )
    return Fault("forgotten connections", 0.0, act(proxy.forget), act(proxy.heal))


# -- of a server -------------------------------------------------------------------------


def restart(server: Daemons, kill: bool, away: float) -> Fault:
    """The server ends, in order or by kill -9, and is started again `away` s later."""

    async def strike() -> None:
        await asyncio.to_thread(server.kill if kill else server.stop)

    async def heal() -> None:
        await asyncio.to_thread(server.start)

    return Fault("a crash" if kill else "a restart", away, strike, heal, SERVER)


# -- of packets --------------------------------------------------------------------------

ALL, SOME = "drop", "numgen random mod 100 < 30 drop"


def lost(host: Host, lasts: float) -> Fault:
    """None arrives, either way."""
    return _packets("lost packets", host, lasts, out=ALL, back=ALL)


def lost_out(host: Host, lasts: float) -> Fault:
    """None arrives at the server."""
    return _packets("lost packets to the server", host, lasts, out=ALL)


def lost_back(host: Host, lasts: float) -> Fault:
    """None arrives at the client."""
    return _packets("lost packets from the server", host, lasts, back=ALL)


def lost_some(host: Host, lasts: float) -> Fault:
    """Of ten, seven arrive, either way."""
    return _packets("some lost packets", host, lasts, out=SOME, back=SOME)


def _packets(what: str, host: Host, lasts: float, *, out: str = "", back: str = "") -> Fault:
    async def strike() -> None:
        await asyncio.to_thread(host.drop, out=out, back=back)

    async def heal() -> None:
        await asyncio.to_thread(host.heal)

    return Fault(what, lasts, strike, heal)
