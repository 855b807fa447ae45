"""The store that all processes of a story share, and what it has to look like at every moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, Literal, TypeVar

from afk.messaging.lifecycle import FINAL, Done, Extend, Outcome, State, parse_token
from afk.messaging.store import Batch, Bell, Claim, Query, Row, Turn, Verdict
from afk.messaging.stores.memory import InMemoryA2ADeliveryStore
from afk.messaging.testing.simulation import simulated_time

T = TypeVar("T")

Verb = Literal["cancel", "redrive", "discard"]


class Server:
    """A memory store that is asked by processes, and outlives them.

    redriven: is told the id of each message that is, by a user or as a handler asks anew.
    wrong: a sentence for each thing that must not be.
    """

    def __init__(self, redriven: Callable[[str], None]) -> None:
        self.store = InMemoryA2ADeliveryStore(clock=simulated_time)
        self.wrong: list[str] = []
        self.looks = 0
        self._redriven = redriven
        self.done: set[str] = set()
        """Tokens of the turns that ended as done."""
        self._accepted: set[str] = set()
        self._latest: dict[str, str] = {}
        self._over: set[str] = set()
        self._cancelled: set[str] = set()
        self._ordered: set[str] = set()
        # What the store sets up, as its alarm, is not of the process that asked just then.
        self._context = copy_context()

    def ask(self, call: Coroutine[Any, Any, T]) -> T:
        """The answer of a verb, which takes effect in this one step."""
        return self._context.run(_at_once, call)

    def listen(self, topic: str) -> Bell:
        """`listen`."""
        return self._context.run(self.store.listen, topic)

    @property
    def heard(self) -> bool:
        """Whether anyone listens."""
        return bool(self.store._bells)

    def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
        """`put`; what is accepted is remembered."""
        verdicts = self.ask(self.store.put(turns))
        for turn, verdict in zip(turns, verdicts, strict=True):
            for accepted in verdict.accepted:
                if not accepted.ignored:
                    self._accepted.add(accepted.id)
            if turn.token and verdict.refusal is None:
                self._settled(turn.token, turn.outcome)
        return verdicts

    def _settled(self, token: str, outcome: Outcome | None) -> None:
        """Only by who was given it last, and only once for good."""
        latest = self._latest[parse_token(token)[0]]
        if token != latest or token in self._over:
            self.wrong.append(f"fence: {token} settled what {latest} is of, or was settled before")
        if isinstance(outcome, Done):
            self.done.add(token)
        if not isinstance(outcome, Extend):
            self._over.add(token)

    def claim(self, claim: Claim) -> Batch:
        """`claim`, held against what the mailbox shows before and after."""
        shelf = self.store._ledger.shelves.get(claim.mailbox)
        if not claim.limit or shelf is None or not shelf.open:
            return self.ask(self.store.claim(claim))
        self.ask(self.store.claim(Claim(mailbox="", limit=0)))
        line = Query(mailbox=claim.mailbox, state="pending", order="delivery")
        waiting = [row.id for row in self._rows(line)]
        batch = self.ask(self.store.claim(claim))
        self._latest |= {leased.id: leased.token or "" for leased in batch.leased}
        taken = [leased.id for leased in batch.leased]
        if not self._cancelled.isdisjoint(taken):
            self.wrong.append(f"final: of {taken} some were cancelled")
        if claim.mailbox not in self._ordered:
            if taken != waiting[: claim.limit]:
                self.wrong.append(f"order: {taken} was claimed of {waiting}")
        elif taken:
            self._threads(claim.mailbox, taken)
        return batch

    def amend(self, verb: Verb, ids: tuple[str, ...], agent: str | None) -> int:
        """`amend`; what is cancelled is never claimed again."""
        changed = self.ask(self.store.amend(verb, ids, agent))
        if verb == "cancel" and changed == len(ids):
            self._cancelled |= set(ids)
        if verb == "redrive" and changed:
            for name in ids:
                self._redriven(name)
        return changed

    def claimed(self, name: str) -> bool:
        """Whether a message was ever claimed."""
        return name in self._latest

    def order(self, mailbox: str) -> None:
        """The threads of this mailbox are worked on one message at a time."""
        self._ordered.add(mailbox)

    def _threads(self, mailbox: str, taken: list[str]) -> None:
        rows = sorted(self._rows(Query(mailbox=mailbox)), key=lambda row: row.cursor)
        heads: dict[str, str] = {}
        for row in rows:
            if row.thread and row.state not in FINAL:
                heads.setdefault(row.thread, row.id)
        for row in rows:
            if row.thread and row.id in taken and heads[row.thread] != row.id:
                self.wrong.append(f"thread: {row.id} was claimed before {heads[row.thread]}")

    # -- looking -------------------------------------------------------------------------

    @property
    def open(self) -> int:
        """How many messages are not worked off."""
        return sum(len(shelf.open) for shelf in self.store._ledger.shelves.values())

    def turns(self, sent: dict[str, list[str]]) -> None:
        """What was sent with the ack of a token has left with it: all of it, or nothing."""
        there = {row.id for row in self._rows(Query())}
        for token, names in sent.items():
            left = [name for name in names if name in there]
            if left != (names if token in self.done else []):
                self.wrong.append(f"turn: of {names}, sent with {token}, {left} left")

    def look(self) -> None:
        """Everything accepted is there, nothing else is, and the counts say so."""
        self.looks += 1
        rows = self._rows(Query())
        there = {row.id for row in rows}
        if there != self._accepted or len(there) != len(rows):
            lost, new = self._accepted - there, there - self._accepted
            self.wrong.append(f"sums: {sorted(lost)} are gone, {sorted(new)} came from nowhere")
        found = Counter((row.mailbox, row.state) for row in rows)
        for name, stats in self.ask(self.store.counts()).items():
            said: dict[State, int] = {
                "pending": stats.pending["all"],
                "leased": stats.leased,
                "scheduled": stats.scheduled,
                "dead": stats.dead,
            }
            is_so = {state: found[name, state] for state in said}
            if said != is_so:
                self.wrong.append(f"sums: {name} counts {said}, and has {is_so}")

    def _rows(self, query: Query) -> list[Row]:
        return self.ask(self.store.browse(query))


def _at_once(call: Coroutine[Any, Any, T]) -> T:
    try:
        call.send(None)
    except StopIteration as end:
        answer: T = end.value
        return answer
    raise AssertionError("the memory store waited for something")
