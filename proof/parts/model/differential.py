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
from afk.messaging.store import (
    A2ADeliveryStore,
    Batch,
    Box,
    Claim,
    Leased,
    Query,
    Row,
    Send,
    Turn,
    Verdict,
)
from afk.messaging.testing.clock import FakeClock

NAMES = ("ada", "bob", "eve", "a/b:c@d")
CALLS = 120
SWEEP = Claim(mailbox="", limit=0)
Made = Callable[[FakeClock], A2ADeliveryStore]


class Player:
    """Makes up calls; what was answered before goes into later ones.

    forgets: ended messages are let go of meanwhile, some sooner than others.
    """

    def __init__(self, seed: int, clock: FakeClock, forgets: bool) -> None:
        self.clock = clock
        self.forgets = forgets
        self.random = random.Random(seed)
        self.ids: list[str] = ["nobody"]
        self.asked: list[str] = ["nobody"]
        """Those that an answer is awaited to; what is no request may be forgotten meanwhile."""
        self.tokens: list[tuple[str, ...]] = [("no.1", "no.1"), ("", "")]
        """Of the same lease, each store's own."""
        self.ends = [0.0, 0.0]
        """When it was to end when it was granted."""

    def call(self) -> tuple[str, tuple[Any, ...]]:  # noqa: PLR0911 - one for each verb
        """A verb, and its arguments."""
        pick = self.random
        kind = pick.choices(
            ("put", "claim", "bind", "unbind", "amend", "wait"), (50, 25, 4, 1, 8, 12)
        )[0]
        match kind:
            case "put":
                turns = [self._turn() for _ in range(pick.choice((1, 1, 1, 2, 5)))]
                turns.sort(key=lambda turn: bool(turn.sends))  # acks come first from a bus too
                return "put", (tuple(turns),)
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
                if verb == "discard" and not self.forgets and pick.random() < 0.4:
                    return "amend", (verb, (), pick.choice(NAMES))
                if verb != "cancel":  # of several, those that died at one time come in any order
                    return "amend", (verb, (pick.choice(self.ids[-20:]),), None)
                some = tuple(pick.choices(self.ids[-20:], k=pick.randint(1, 3)))
                return "amend", (verb, tuple(dict.fromkeys(some)), None)
        return "wait", (pick.choice((0.0, 0.25, 1.0, 6.0, 40.0)),)

    def learn(self, args: tuple[Any, ...], answers: list[Any]) -> None:
        """Tokens can be used later."""
        if all(isinstance(answer, Batch) for answer in answers):
            pairs = zip(*(answer.leased for answer in answers), strict=True)
            for pair in pairs:
                self.tokens.append(tuple(leased.token or "" for leased in pair))
                self.ends.append(self.clock() + args[0].lease)

    def _turn(self) -> Turn:
        pick = self.random
        sends: list[Send] = []
        for _ in range(pick.choice((0, 1, 1, 1, 2, 4))):
            one = self._send()
            if all(one.answers != other.id for other in sends):  # which nobody was given yet
                sends.append(one)
        outcomes: list[Outcome] = [
            Done(),
            Done(),
            Again(pick.choice((0.0, 1.0)), counts=pick.random() < 0.5, error="later"),
            Dead("rejected", "no"),
            Extend(pick.choice((1.0, 5.0))),
        ]
        if not sends or pick.random() < 0.4:
            token, outcome = pick.choice(self._places()), pick.choice(outcomes)
            if isinstance(outcome, Extend):
                outcome = self._extended(int(token), outcome)
            return Turn(sends=tuple(sends), token=token, outcome=outcome)
        return Turn(sends=tuple(sends), roster=pick.choice((None, None, None, None, 0, 0, -1)))

    def _extended(self, place: int, outcome: Extend) -> Outcome:
        if self.clock() >= self.ends[place]:
            return Done()  # taken up again, and ended again, some keep the pause
        self.ends[place] = min(self.ends[place], self.clock() + outcome.seconds)
        return outcome

    def _places(self) -> list[str]:
        """Of the last tokens."""
        return [str(place) for place in range(len(self.tokens))][-6:]

    def _send(self) -> Send:
        pick = self.random
        answers = pick.choice(self.asked[-12:]) if pick.random() < 0.2 else None
        name = f"m{len(self.ids)}"
        if answers:
            name = f"answer {name}"  # never used again: it is looked up by the request
        elif pick.random() < 0.1:
            used = (each for each in self.ids if "answer" not in each)
            name = pick.choice([each for each in used if each not in self.asked] or [name])
        new = name not in self.ids
        if new:
            self.ids.append(name)
        sender, mailbox = pick.choice(NAMES), pick.choice((*NAMES, *NAMES, "nobody"))
        thread, chain = pick.choice(("", "", "t", "u")), pick.choice((None, "c"))
        awaited = answers is not None or pick.random() < 0.3
        if awaited and new and not answers:
            self.asked.append(name)
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
            retention=pick.choice((3.0, 50.0)) if self.forgets else 1e6,
            history=pick.choice((0.0, 3.0, 50.0)) if self.forgets else 1e6,
            history_max=10_000,  # who counts when, within a call, is a store's own
        )


async def played(
    store: A2ADeliveryStore, tokens: Sequence[str], verb: str, args: tuple[Any, ...]
) -> Any:
    """What the store answers, or the kind of error it raises. tokens: its own, by place."""
    if verb == "put":  # versions are its own too
        now = (await store.agents()).version
        args = (tuple(_its_own(turn, now, tokens) for turn in args[0]),)
    try:
        return await getattr(store, verb)(*args)
    except MessagingError as error:
        return type(error)


def _its_own(turn: Turn, version: int, tokens: Sequence[str]) -> Turn:
    token = turn.token if turn.token is None else tokens[int(turn.token)]
    roster = None if turn.roster is None else version + turn.roster
    return replace(turn, token=token, roster=roster)


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
    # Of one turn, in any order; in a mailbox it is seen below.
    for same in (rows[0], rows[2], rows[3]):
        same.sort(key=lambda row: (row.accepted_at, row.id))
    rows[1].sort(key=lambda row: (row.settled_at or 0.0, row.id))  # at one time, in any order
    counts = {
        name: replace(stats, last_seen=None, oldest_age=None)  # of the redriven, a store's own
        for name, stats in (await store.counts()).items()
    }
    return rows, counts, (await store.agents()).boxes


def plain(row: Row) -> Row:
    """What every store shows alike: bodies as bytes, for one store keeps objects and another reads
    them; no thread, which some keep of ordered mailboxes only."""
    body, answer = (wire(each) if each is not None else None for each in (row.body, row.answer))
    return replace(row, cursor=0, thread="", fence=0, body=body, answer=answer)


def _opaque(leased: Leased) -> Leased:
    return replace(leased, body=wire(leased.body), token=leased.token and "")


def comparable(answer: Any) -> Any:
    """Bodies as bytes, tokens away, and who died at the same time in any order."""
    match answer:
        case Batch():
            leased = tuple(
                replace(each, body=wire(each.body), token=each.token and "")
                for each in answer.leased
            )
            return replace(answer, leased=leased, died=sorted(answer.died))
        case [Verdict(), *_]:  # of one call, any of them may tell who died
            died = sorted(name for verdict in answer for name in verdict.died)
            return [*(replace(verdict, died=()) for verdict in answer), died]
        case list() | tuple():
            return sorted(answer)
    return answer


async def differ(one: Made, other: Made, seed: int, *, forgets: bool = True) -> None:
    """AssertionError where the stores part, with the seed and the call.

    forgets: whether they let go of what ended at the times that they promise, or some time later.
    """
    clock = FakeClock()
    player = Player(seed, clock, forgets)
    stores = [one(clock), other(clock)]
    for store in stores:
        await store.open()
    try:
        for name in NAMES[:3]:
            for store in stores:
                await store.bind(Box(name=name, ordered=name == "bob", capacity=5))
        for number in range(CALLS):
            verb, args = player.call()
            where = f"seed {seed}, call {number}: {verb}{args!r}"
            if verb == "wait":
                clock.advance(*args)
                verb, args = "claim", (SWEEP,)  # which brings about what has become due
            answers = []
            for store, tokens in zip(stores, zip(*player.tokens, strict=True), strict=True):
                answers.append(await played(store, tokens, verb, args))
            left, right = map(comparable, answers)
            assert left == right, f"{left}\n{right}\n{where}"
            player.learn(args, answers)
            if number % 10 == 0:
                for store in stores:
                    await store.amend("cancel", ("none",), None)  # a write lets go of the old
                assert await shown(stores[0]) == await shown(stores[1]), where
    finally:
        for store in stores:
            await store.close()
