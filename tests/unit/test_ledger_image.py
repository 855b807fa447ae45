"""A ledger that was written down and read again goes on like one that was there all along."""

from __future__ import annotations

from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from afk.messaging.errors import UnknownAgentError
from afk.messaging.lifecycle import Again, Dead, Done, Extend, Outcome, RetryPolicy
from afk.messaging.messages import AgentMessage
from afk.messaging.records import letter_record, wire
from afk.messaging.store import Batch, Box, Claim, Query, Send, Turn
from afk.messaging.stores.ledger import Ledger, image

NAMES = ("ada", "bob", "eve")
names = st.sampled_from(NAMES)
seconds = st.sampled_from((0.0, 1.0, 5.0))

sends = st.fixed_dictionaries(
    {
        "mailbox": names,
        "sender": names,
        "rank": st.integers(0, 3),
        "key": st.sampled_from((None, None, "k1", "k2")),
        "delay": seconds,
        "ttl": st.sampled_from((None, 2.0, 8.0)),
        "thread": st.sampled_from(("", "t", "u")),
        "awaited": st.booleans(),
        "alone": st.booleans(),
        "dead": st.sampled_from((None, None, ("hops", "too many"))),
        "history": seconds,
        "history_max": st.integers(0, 3),
        "retention": seconds,
    }
)
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.just(Done()),
    st.builds(Again, seconds, counts=st.booleans()),
    st.just(Dead("rejected", "no")),
    st.builds(Extend, seconds),
)
moves = st.one_of(
    st.tuples(st.just("send"), sends),
    st.tuples(st.just("answer"), st.integers(0, 20), seconds),
    st.tuples(st.just("claim"), names, st.integers(0, 3), st.integers(1, 3)),
    st.tuples(st.just("settle"), st.integers(0, 20), outcomes),
    st.tuples(st.just("bind"), names, st.booleans(), st.integers(1, 6)),
    st.tuples(st.just("unbind"), names),
    st.tuples(
        st.just("amend"), st.sampled_from(("cancel", "redrive", "discard")), st.integers(0, 20)
    ),
    st.tuples(st.just("wait"), st.sampled_from((0.5, 3.0, 20.0))),
)


class Player:
    """Makes the same moves on any ledger."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.tokens: list[str] = []
        self.now = 1000.0
        self._numbers = count()

    def prepared(self, move: tuple[Any, ...]) -> Any:  # noqa: PLR0911 - one for each kind of move
        """A call to make on a ledger, or None."""
        match move:
            case ("send", fields):
                return self._take(Turn(sends=(self._send(**fields),)))
            case ("answer", index, retention) if self.ids:
                asked = self.ids[index % len(self.ids)]
                send = self._send("ada", "bob", awaited=True, answers=asked, retention=retention)
                return self._take(Turn(sends=(send,)))
            case ("claim", name, limit, attempts):
                policy = RetryPolicy(max_attempts=attempts, jitter="none")
                claim = Claim(mailbox=name, limit=limit, lease=4.0, policy=policy)
                return lambda ledger: ledger.claim(claim, self.now)
            case ("settle", index, outcome) if self.tokens:
                token = self.tokens[index % len(self.tokens)]
                return self._take(Turn(token=token, outcome=outcome))
            case ("bind", name, ordered, capacity):
                box = Box(name=name, ordered=ordered, capacity=capacity)
                return lambda ledger: ledger.bind(box)
            case ("unbind", name):
                return lambda ledger: ledger.unbind(name, self.now)
            case ("amend", verb, index) if self.ids:
                ids = (self.ids[index % len(self.ids)],)
                return lambda ledger: ledger.amend(verb, ids, None, self.now)
            case ("wait", pause):
                self.now += pause
        return None

    def _take(self, turn: Turn) -> Any:
        return lambda ledger: ledger.take(turn, self.now)

    def _send(self, mailbox: str, sender: str, **fields: Any) -> Send:
        name = f"m{next(self._numbers)}"
        self.ids.append(name)
        body = wire(letter_record(AgentMessage(sender, mailbox, fields.get("key"), id=name)))
        return Send(body=body, id=name, mailbox=mailbox, sender=sender, **fields)


def played(call: Any, ledger: Ledger) -> Any:
    try:
        return call(ledger)
    except UnknownAgentError as error:
        return str(error)
    finally:
        ledger.news.clear()


def shown(ledger: Ledger, now: float) -> Any:
    looks = [Query(), Query(order="ended"), *[Query(mailbox=n, order="delivery") for n in NAMES]]
    return [ledger.browse(query, now) for query in looks], ledger.counts(None, now)


@settings(deadline=None)
@given(st.lists(st.tuples(moves, st.booleans()), max_size=60))
def test_it_goes_on_the_same(script: list[tuple[tuple[Any, ...], bool]]) -> None:
    """Whenever it is written down: the same answers, the same looks, the same bytes again."""
    stayed, moved, player = Ledger(), Ledger(), Player()
    for name in NAMES[:2]:
        for ledger in (stayed, moved):
            ledger.bind(Box(name=name, ordered=name == "bob", capacity=5))
    for move, move_house in script:
        call = player.prepared(move)
        if call is not None:
            answer = played(call, stayed)
            assert played(call, moved) == answer
            if isinstance(answer, Batch):
                player.tokens += [leased.token or "" for leased in answer.leased]
        if move_house:
            pages = list(image.pages(moved))
            assert pages == list(image.pages(stayed))
            moved = image.load(pages)
        assert shown(moved, player.now) == shown(stayed, player.now)
    assert list(image.pages(moved)) == list(image.pages(stayed))
