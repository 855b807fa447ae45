"""The network is bad, and servers are restarted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from proof.trial import Part, Run, Trial

from . import faults, hosts, trials
from .trials import behind_a_proxy, on_hosts, with_restarts

STORES = ("redis", "postgres", "nats")
LARGE = {"": 200}

CONTROL = "silence, from the server; what is in doubt sent again under new keys"
BEHIND_A_PROXY = {
    "silence, both ways": faults.partition,
    "silence, to the server": faults.deaf,
    "silence, from the server": faults.mute,
    "connections forgotten": faults.forgotten,
    "resets in the middle of answers": faults.cut,
    "a slow link": faults.slow,
    "connections refused": faults.refused,
}
PACKETS_LOST = {
    "packets lost, all": faults.lost,
    "packets lost, to the server": faults.lost_out,
    "packets lost, from the server": faults.lost_back,
    "packets lost, 30 %": faults.lost_some,
}


def _trial(what: str, run: Run, small: int = 2, batch: int = 100, **fields: Any) -> Trial:
    given = {"small": small, "large": LARGE, "batch": batch, "stores": STORES, **fields}
    return Trial(what, run, **given)


PART = Part(
    name="network",
    title="A bad network",
    about="""\
Teams of two processes send (in doubt again, under the same key), receive, claim and ack, serve
and ask; one of them reaches the server by a network that fails for 0.2 to 8 s, time after time: by
a proxy that holds back or resets, by packets that are dropped in a network namespace. Or the server
is stopped or killed under both. A call waits 2 s for the server, a lease is 2 s. A failure is:
something accepted that is lost or there twice, a message that comes again without a reason, a
wrong answer, an answer without the message that was to leave with it, a call that ends more than a
second after its deadline, a sender or consumer that is not at work again 10 s after the network is.
What happens to a server in a partition of a cluster is not shown here.

Redis checks its file before each start, as its page in `docs/stores` asks for. Without that, three
of some 750 crashes under traffic left half of a script's writes in it, which took effect after the
next crash: `stats` counted a message too many from then on, and one message was delivered again
after its end. The second cannot happen any more, the first can.""",
    trials=(
        *(_trial(what, behind_a_proxy(kind)) for what, kind in BEHIND_A_PROXY.items()),
        _trial(
            CONTROL,
            behind_a_proxy(faults.mute_for_long, careless=True),
            large={"": 100},
            expect_failures=True,
        ),
        _trial("restarts", with_restarts(False), batch=50),
        _trial("crashes", with_restarts(True), batch=50),
        *(_trial(what, on_hosts(kind), needs=hosts.lacks) for what, kind in PACKETS_LOST.items()),
    ),
)

SMALL = replace(
    PART,
    trials=(
        _trial(
            "a bad way",
            behind_a_proxy(*BEHIND_A_PROXY.values(), size=trials.SMALL),
            small=len(BEHIND_A_PROXY),
        ),
        _trial(
            CONTROL,
            behind_a_proxy(faults.mute_for_long, size=trials.SMALL, careless=True),
            stores=("redis",),
            expect_failures=True,
        ),
        _trial("restarts", with_restarts(False, True, size=trials.SMALL)),
        _trial(
            "lost packets",
            on_hosts(*PACKETS_LOST.values(), size=trials.SMALL),
            small=len(PACKETS_LOST),
            needs=hosts.lacks,
        ),
    ),
)
"""The same kinds, side by side: every test run makes these rounds."""
