"""What a process does in a bad network: it sends, receives, claims, serves and asks.

Two such processes are a team: each has mailboxes that only it reads, `both` is read by both of
them. The one called `far` is at the end of the bad network, the one called `near` has a good one.
"""

from __future__ import annotations

import asyncio
import logging
import random
from pathlib import Path
from typing import Any

from afk.messaging import MessageBus, connect
from afk.messaging.testing.history import History
from afk.messaging.testing.processes import hear, say

from . import hosts
from .receivers import Receivers
from .senders import Senders
from .terms import BOTH, RETRY
from .watch import Watch


async def work(_: MessageBus, where: dict[str, Any]) -> None:
    """In a process of its own. where: names of this process and the other one (`me`, `other`), the
    `url` of the server, the `folder` of the history, a `seed`, the `host` it is to be on ("": this
    one), and whether it is `careless`."""
    if where["host"]:
        hosts.enter(where["host"])
    history = History(Path(where["folder"]), where["me"])
    bus = connect(where["url"], retry=RETRY)
    try:
        await _take_part(bus, history, where)
    finally:
        await bus.aclose()
        history.close()


async def _take_part(bus: MessageBus, history: History, where: dict[str, Any]) -> None:
    me, other, chance = where["me"], where["other"], random.Random(where["seed"])
    watch = Watch(me)
    logging.getLogger().addHandler(watch)
    receivers = Receivers(bus, me, history, watch, chance)
    for name in (f"{me}-in", f"{me}-ask", f"{me}-idle", BOTH):
        await receivers.join(name)
    senders = Senders(await receivers.join(me), history, watch, chance, where["careless"])
    say(["ready"])
    hear()  # until the other is there
    sending = [
        asyncio.create_task(each)
        for each in (
            senders.send(f"{other}-in"),
            senders.send(BOTH),
            senders.ask(f"{other}-ask"),
        )
    ]
    receiving = [
        asyncio.create_task(each)
        for each in (
            receivers.receive(),
            receivers.claim(),
            receivers.serve(),
            receivers.wait_in_vain(),
            watch.tick(),
        )
    ]
    await _obey(watch, senders, sending)
    for task in receiving:
        if task.done() and not task.cancelled():
            watch.bad.append(f"{me}: a consumer ended: {task.exception()!r}")
        task.cancel()
    await asyncio.gather(*receiving, return_exceptions=True)
    watch.judge_times()
    say(["left", watch.bad, watch.counts, watch.overruns])


async def _obey(watch: Watch, senders: Senders, sending: list[asyncio.Task[None]]) -> None:
    while True:
        match await asyncio.to_thread(hear):
            case ["watch", turn, since]:
                watch.begin(turn, since)
            case ["stop"]:
                senders.stopping = True
                for task in sending:
                    await task
                say(["quiet"])
            case ["leave"]:
                return
