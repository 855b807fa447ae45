"""Rounds: some teams at work at the same time, with one fault after the other."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from afk.messaging.testing.servers import NATS, Postgres, Server, find
from proof.ground import ground as another
from proof.proxy import HOST, Proxy
from proof.trial import Daemons, Ground, Outcome, Run

from . import faults
from .faults import ProxyFault
from .hosts import Host, free_pairs
from .team import Fault, Place, Team, at_work

ANY = "0.0.0.0"
CALM = 0.4
"""Seconds between faults, at most."""


@dataclass(frozen=True)
class Size:
    """How much at once: teams, or servers with two teams each. lasting: how long a fault does.
    stuck: seconds after a fault in which all must be at work again."""

    teams: int
    servers: int
    lasting: Callable[[random.Random], float]
    stuck: float


LIGHT = {"redis": 1.0, "nats": 0.5, "postgres": 0.3}
"""How much of it a machine carries with ease, next to Redis: a message costs the others more
processor time, and where that runs out everything is late, whatever the network does."""

LARGE = Size(teams=16, servers=6, lasting=faults.long, stuck=10.0)
SMALL = Size(teams=4, servers=1, lasting=faults.brief, stuck=30.0)
"""For a machine that may have other things to do."""


def behind_a_proxy(*kinds: ProxyFault, size: Size = LARGE, careless: bool = False) -> Run:
    """Teams, each behind a proxy of its own, have faults of these kinds in turn."""

    async def run(ground: Ground, rounds: int, seed: int) -> Outcome:
        assert ground.server is not None
        server = ground.server

        async def one(number: int, share: int, chance: random.Random) -> Outcome:
            with Proxy(HOST, server.port) as proxy:

                def fault(turn: int) -> Fault:
                    kind = kinds[(number + turn) % len(kinds)]
                    return kind(proxy, chance, size.lasting(chance))

                far = ground.url.replace(str(server.port), str(proxy.port))
                place = Place(ground.url, far, size.stuck, *_space(ground, number, seed))
                return await _endure(place, share, chance, fault, careless)

        return await _all(one, rounds, seed, _light(size.teams, ground))

    return run


def with_restarts(*kills: bool, size: Size = LARGE) -> Run:
    """Servers, each with some teams, are restarted in these ways in turn: a round for its teams."""

    async def run(ground: Ground, rounds: int, seed: int) -> Outcome:
        async def one(number: int, share: int, chance: random.Random) -> Outcome:
            with another(ground.store) as own:
                return await _restarted(own, kills, share, chance, size.stuck)

        return await _all(one, rounds, seed, _light(size.servers, ground))

    return run


async def _restarted(
    ground: Ground, kills: tuple[bool, ...], rounds: int, chance: random.Random, stuck: float
) -> Outcome:
    assert ground.server is not None
    async with AsyncExitStack() as stack:
        teams = []
        for number in range(2):
            place = Place(ground.url, ground.url, stuck, *_space(ground, number, 0))
            joining = at_work(place, chance.randrange(10**9))
            teams.append(await stack.enter_async_context(joining))
        for turn in range(rounds):
            await asyncio.sleep(chance.uniform(0, CALM))
            kill, away = kills[turn % len(kills)], chance.choice((0.0, 0.2, 1.5))
            await _endure_together(teams, faults.restart(ground.server, kill, away))
    outcome = _sum(team.outcome for team in teams)
    outcome.rounds = rounds
    return outcome


async def _endure_together(teams: list[Team], fault: Fault) -> None:
    async with AsyncExitStack() as stack:
        for team in teams:
            await stack.enter_async_context(team.noting(fault))
        await fault.strike()
        try:
            await asyncio.sleep(fault.lasts)
        finally:
            await fault.heal()
    await asyncio.gather(*(team.recover(fault) for team in teams))


def on_hosts(*kinds: Callable[[Host, float], Fault], size: Size = LARGE) -> Run:
    """Teams, one process of each on a host of its own, lose packets in these ways in turn."""

    async def run(ground: Ground, rounds: int, seed: int) -> Outcome:
        pairs = free_pairs()
        with _server(ground, seed) as server:

            async def one(number: int, share: int, chance: random.Random) -> Outcome:
                there, here = next(pairs)
                with Host(number, here, there) as host:

                    def fault(turn: int) -> Fault:
                        return kinds[(number + turn) % len(kinds)](host, size.lasting(chance))

                    near = server.url.replace(ANY, HOST)
                    far = near.replace(HOST, host.there)
                    place = Place(near, far, size.stuck, *_space(ground, number, seed), host.name)
                    return await _endure(place, share, chance, fault)

            return await _all(one, rounds, seed, _light(size.teams, ground))

    return run


class _OpenNATS(NATS):
    host = ANY


@contextmanager
def _server(ground: Ground, seed: int) -> Iterator[Daemons]:
    """A server like that of the ground, which other hosts can reach."""
    folder = ground.folder / f"open-{seed}"
    match ground.server:
        case Server() as known:
            with Server(known.binary, folder, bind=ANY, appendfsync="always") as server:
                yield server
        case NATS() as known:
            with _OpenNATS(known.binary, folder, sync_interval="always") as server:
                yield server
        case _:
            with Postgres(find("postgres18"), folder, listen_addresses="*") as server:
                with (server.data / "pg_hba.conf").open("a") as rules:
                    rules.write("host all all 0.0.0.0/0 trust\n")
                server.psql("SELECT pg_reload_conf()")
                yield server


# -- what they have in common ------------------------------------------------------------


def _light(number: int, ground: Ground) -> int:
    return number if number <= SMALL.teams else round(number * LIGHT[ground.store])


def _space(ground: Ground, number: int, seed: int) -> tuple[Path, str]:
    """A folder and a namespace of a team's own."""
    name = f"team-{seed}-{number}-{os.urandom(3).hex()}"
    return ground.folder / name, name


async def _endure(
    place: Place,
    rounds: int,
    chance: random.Random,
    fault: Callable[[int], Fault],
    careless: bool = False,
) -> Outcome:
    async with at_work(place, chance.randrange(10**9), careless) as team:
        for turn in range(rounds):
            await asyncio.sleep(chance.uniform(0, CALM))
            await team.endure(fault(turn))
    return team.outcome


async def _all(
    one: Callable[[int, int, random.Random], Awaitable[Outcome]],
    rounds: int,
    seed: int,
    teams: int,
) -> Outcome:
    """The rounds, shared out among teams."""
    chance = random.Random(seed)
    teams = min(teams, rounds)
    shares = [rounds // teams + (number < rounds % teams) for number in range(teams)]
    made = [
        one(number, share, random.Random(chance.randrange(10**9)))
        for number, share in enumerate(shares)
    ]
    return _sum(await asyncio.gather(*made))


def _sum(outcomes: Iterable[Outcome]) -> Outcome:
    total = Outcome()
    for each in outcomes:
        total.add(each)
    return total
