"""kill -9 of whoever it may be, at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from afk.messaging.testing.history import SERVER
from afk.messaging.testing.processes import Work

from ...trial import Ground, Outcome, Part, Run, Trial
from . import clients
from .batch import Batch
from .opening import opening_killed, server_killed_at_opening
from .syscalls import killed_at_calls, lacks


def killed(*works: Work) -> Run:
    """Clients of these kinds are killed, again and again."""

    async def trial(ground: Ground, rounds: int, seed: int) -> Outcome:
        batch = Batch(ground, seed)
        await batch.set_up()
        await batch.kill_often(_possible(batch, works), rounds)
        return await batch.judged()

    return trial


def _possible(batch: Batch, works: Sequence[Work]) -> list[Work]:
    return [work for work in works if batch.transactional or work is not clients.affect]


async def server_killed(ground: Ground, rounds: int, seed: int) -> Outcome:
    """The server is killed and started again while clients work, which have to cope."""
    server = ground.server
    assert server is not None
    batch = Batch(ground, seed)
    await batch.set_up()
    works: tuple[Work, ...] = (clients.send, clients.claim, clients.serve, clients.affect)
    works += (clients.bury, clients.redrive)
    async with asyncio.TaskGroup() as team:
        clients_alive = [team.create_task(batch.keep_alive(w)) for w in _possible(batch, works)]
        for _ in range(rounds):
            await asyncio.sleep(0.2 + batch.rng.random() * 0.6)
            batch.kills += 1
            batch.fault(SERVER, "kill of the server")
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            batch.fault(SERVER, "start of the server")
        await asyncio.sleep(1.0)
        for each in clients_alive:
            each.cancel()
    return await batch.judged()


SERVERS = ("redis", "postgres", "nats")

_AT_CALLS = Trial(
    "killed at each system call",
    killed_at_calls(spread=False),
    0,
    {"": 2_000},
    100,
    ("sqlite",),
    needs=lacks,
)

PART = Part(
    name="crash",
    title="Crashes",
    about="""\
Clients are killed with SIGKILL at random moments, or end themselves at exact points, and are
started again at once; the server likewise. Senders (S1 to S3: before the send left, before it was
committed, before it was answered) send under keys and, if a send is in doubt, again under the same
key. Consumers claim and settle, or serve handlers that send on with their ack (C1: claimed; C2: in
the handler; C4, C5: before and after the ack is committed), on SQLite and PostgreSQL also handlers
that write an effect in the store's own transaction (C3). Others let messages die (D1, D2: while a
message becomes a dead letter, and when somebody is told) and redrive them (R1). M1 is the first
opening of a place, with its schema, by several processes at once; there the server is killed too. A
round is a kill.

`at S3` and so on is how often a kill (of a client or of the server, which touches many calls at
once) hit that step, as far as the history tells: a send that was not answered was stored (S3) or
not (S1 or S2); an ack that was not answered had taken effect (C5) or the message came again (C4);
an attempt that nobody noted was claimed and not delivered (C1). What a worker settles is out of its
handler's sight: killed within 5 ms after a handler had ended, it was at C4 or C5, or at D1 if that
had failed for good.

In the end healthy consumers work off what is left, and all that every process saw is judged: each
message that was accepted has ended, once per key, with its content; no turn began while another
had the message, unless that one's process was killed or gave up; there is one effect for each
message that is done; nothing comes again after its end. `recovery` is from the kill of a process
(or the server's last kill or start, if that is later) to the moment when another has what it held:
its lease of half a second, at most, and what it takes to notice; when the server fails again and
again, workers wait for up to five seconds before they ask once more.

On SQLite a process that makes a new file, sends, claims, settles in every way, writes an effect,
lets a message die, redrives it and closes the file is killed with strace at its first system call
that touches a file or a lock, the next life at the second, and so on: the opens, then the writes,
and so on. `in pwrite64` and so on is where it died, `outlived` that a life had fewer calls.

The stores are set to disk. This shows nothing of machines that lose power; see Power loss.""",
    trials=(
        Trial(
            "senders killed",
            killed(clients.send, clients.send, clients.serve),
            20,
            {"sqlite": 2500, "": 300},
            100,
        ),
        Trial(
            "consumers killed",
            killed(clients.send, clients.claim, clients.claim, clients.serve, clients.affect),
            25,
            {"sqlite": 4000, "": 400},
            100,
        ),
        Trial(
            "killed at burials and redrives",
            killed(clients.send, clients.bury, clients.bury, clients.redrive),
            15,
            {"sqlite": 2500, "": 200},
            100,
        ),
        Trial("killed at the first opening", opening_killed, 8, {"sqlite": 1000, "": 100}, 100),
        Trial("server killed", server_killed, 3, {"": 200}, 20, SERVERS),
        Trial(
            "server killed at the first opening",
            server_killed_at_opening,
            2,
            {"": 100},
            20,
            SERVERS,
        ),
        _AT_CALLS,
    ),
)

SMALL = replace(
    PART,
    trials=(
        *PART.trials[:-1],
        replace(_AT_CALLS, run=killed_at_calls(spread=True), small=20),
    ),
)
"""The same, but for lives killed at 20 calls only: every test run makes these rounds."""
