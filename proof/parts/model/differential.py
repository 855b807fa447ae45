"""Random calls of the port on two stores with one clock: both must answer alike, and show alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from afk.messaging import AgentMessage, MessagingError
from afk.messaging.lifecycle import Again, Dead, Done, Extend, Outcome, RetryPolicy
from afk.messaging.messages import Context
from afk.messaging.records import letter_record, wire
from afk.messaging.store import A2ADeliveryStore, Batch, Box, Claim, Query, Row, Send, Turn, Verdict
from afk.messaging.testing.clock import FakeClock

NAMES = ("ada", "bob", "eve", "a/b:c@d")
CALLS = 120
SWEEP = Claim(mailbox="", limit=0)
Made = Callable[[FakeClock], A2ADeliveryStore]


class Player:
    """Makes up calls; what was answered before goes into later ones."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.ids: list[str] = ["nobody"]
        self.tokens: list[str] = ["no.1", ""]

    def call(self) -> tuple[str, tuple[Any, ...]]:  # noqa: PLR0911 - one for each verb
        """A verb, and its arguments."""
        pick = self.random
        kind = pick.choices(
            ("put", "claim", "bind", "unbind", "amend", "wait"), (50, 25, 4, 1, 8, 12)
        )[0]
        match kind:
            case "put":
                known = tuple(self.ids[-12:])  # nobody answers what was not delivered yet
                count = pick.choice((1, 1, 1, 2, 5))
                return "put", (tuple(self._turn(known) for _ in range(count)),)
            case "claim":
                policy = RetryPolicy(max_attempts=pick.randint(1, 3), base=pick.choice((0, 2)))
                claim = Claim(
                    mailbox=pick.choice((*NAMES, *NAMES, "nobody")),
                    limit=pick.choice((0, 1, 1, 3)),
                    lease=pick.choice((1.0, 5.0)),
                    policy=policy,
                    chance=pick.random(),
                )
                return "claim", (claim,)
            case "bind":
                box = Box(
                    name=pick.choice(NAMES),
                    ordered=pick.random() < 0.5,
                    capacity=pick.choice((2, 5, 100)),
                    max_bytes=pick.choice((250, 10_000)),
                )
                return "bind", (box,)
            case "unbind":
                return "unbind", (pick.choice(NAMES),)
            case "amend":
                verb = pick.choice(("cancel", "redrive", "discard"))
                if verb != "cancel" and pick.random() < 0.2:
                    return "amend", (verb, (), pick.choice(NAMES))
                some = tuple(pick.choices(self.ids[-20:], k=pick.randint(1, 3)))
                return "amend", (verb, tuple(dict.fromkeys(some)), None)
        return "wait", (pick.choice((0.0, 0.25, 1.0, 6.0, 40.0)),)

    def learn(self, answer: Any) -> None:
        """Tokens can be used later."""
        if isinstance(answer, Batch):
            self.tokens += [leased.token or "" for leased in answer.leased]

    def _turn(self, known: Sequence[str]) -> Turn:
        pick = self.random
        sends = tuple(self._send(known) for _ in range(pick.choice((0, 1, 1, 1, 2, 4))))
        outcomes: list[Outcome] = [
            Done(),
            Done(),
            Again(pick.choice((0.0, 1.0)), counts=pick.random() < 0.5, error="later"),
            Dead("rejected", "no"),
            Extend(pick.choice((1.0, 5.0))),
        ]
        if not sends or pick.random() < 0.4:
            token, outcome = pick.choice(self.tokens[-6:]), pick.choice(outcomes)
            return Turn(sends=sends, token=token, outcome=outcome)
        return Turn(sends=sends, roster=pick.choice((None, None, None, None, 0, 0, -1)))

    def _send(self, known: Sequence[str]) -> Send:
        pick = self.random
        if pick.random() < 0.1:
            name = pick.choice(self.ids)
        else:
            name = f"m{len(self.ids)}"
            self.ids.append(name)
        sender, mailbox = pick.choice(NAMES), pick.choice((*NAMES, *NAMES, "nobody"))
        answers = pick.choice(known) if pick.random() < 0.2 else None
        thread, chain = pick.choice(("", "", "t", "u")), pick.choice((None, "c"))
        awaited = answers is not None or pick.random() < 0.3
        message = AgentMessage(
            sender,
            mailbox,
            pick.choice((1, 1, "x" * 300)),
            id=name,
            correlation_id=chain,
            causation_id=answers,
            _context=Context(
                kind="event" if not awaited else "response" if answers else "request",
                thread_id=thread,
                awaited=awaited,
            ),
        )
        return Send(
            body=wire(letter_record(message)),
            id=name,
            mailbox=mailbox,
            sender=sender,
            rank=pick.randint(0, 3),
            key=pick.choice((None, None, None, "k1", "k2")),
            compare=pick.random() < 0.7,
            delay=pick.choice((0.0, 0.0, 0.0, 1.0, 5.0)),
            ttl=pick.choice((None, None, None, 2.0, 8.0)),
            thread=thread,
            chain=chain,
            awaited=awaited,
            answers=answers,
            alone=pick.random() < 0.2,
            dead=("hops", "too many") if pick.random() < 0.05 else None,
            retention=pick.choice((3.0, 50.0)),
            history=pick.choice((0.0, 3.0, 50.0)),
            history_max=pick.choice((2, 100)),
        )


async def played(store: A2ADeliveryStore, verb: str, args: tuple[Any, ...]) -> Any:
    """What the store answers, or the kind of error it raises."""
    if verb == "put":  # versions are a store's own
        now = (await store.agents()).version
        args = (tuple(replace(t, roster=_version(now, t.roster)) for t in args[0]),)
    try:
        return await getattr(store, verb)(*args)
    except MessagingError as error:
        return type(error)


def _version(now: int, back: int | None) -> int | None:
    return None if back is None else now + back


async def shown(store: A2ADeliveryStore) -> Any:
    """All that there is to see; the cursors of rows are a store's own."""
    queries = [
        Query(),
        Query(order="ended"),
        Query(state="dead"),
        Query(chain="c"),
        *(Query(mailbox=name, order="delivery") for name in NAMES),
    ]
    rows = [[plain(row) for row in await store.browse(query)] for query in queries]
    rows[1].sort(key=lambda row: (row.settled_at or 0.0, row.id))  # at one time, in any order
    counts = {
        name: replace(stats, last_seen=None) for name, stats in (await store.counts()).items()
    }
    return rows, counts, (await store.agents()).boxes


def plain(row: Row) -> Row:
    """What every store shows alike: bodies as bytes, for one store keeps objects and another reads
    them; no thread, which some keep of ordered mailboxes only."""
    body, answer = (wire(each) if each is not None else None for each in (row.body, row.answer))
    return replace(row, cursor=0, thread="", body=body, answer=answer)


def comparable(answer: Any) -> Any:
    """Bodies as bytes, and who died at the same time in any order."""
    match answer:
        case Batch():
            leased = tuple(replace(each, body=wire(each.body)) for each in answer.leased)
            return replace(answer, leased=leased, died=sorted(answer.died))
        case [Verdict(), *_]:
            return [replace(verdict, died=sorted(verdict.died)) for verdict in answer]
        case list() | tuple():
            return sorted(answer)
    return answer


async def differ(one: Made, other: Made, seed: int, calls: int = CALLS) -> None:
    """AssertionError where the stores part, with the seed and the call."""
    clock, player = FakeClock(), Player(seed)
    stores = [one(clock), other(clock)]
    for store in stores:
        await store.open()
    try:
        for name in NAMES[:3]:
            for store in stores:
                await store.bind(Box(name=name, ordered=name == "bob", capacity=5))
        for number in range(calls):
            verb, args = player.call()
            where = f"seed {seed}, call {number}: {verb}{args!r}"
            if verb == "wait":
                clock.advance(*args)
                verb, args = "claim", (SWEEP,)  # which brings about what has become due
            answers = [comparable(await played(store, verb, args)) for store in stores]
            assert answers[0] == answers[1], f"{answers[0]}\n{answers[1]}\n{where}"
            player.learn(answers[0])
            if number % 10 == 0:
                for store in stores:
                    await store.claim(SWEEP)  # lets go of what is more than `history_max`
                assert await shown(stores[0]) == await shown(stores[1]), where
    finally:
        for store in stores:
            await store.close()
