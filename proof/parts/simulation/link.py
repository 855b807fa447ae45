"""A process's way to the store: slow, failing, with hints that get lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TypeVar

from msgspec.structs import replace

from afk.messaging.errors import StoreError
from afk.messaging.lifecycle import GIVE_BACK, Extend
from afk.messaging.records import Record
from afk.messaging.store import (
    Accepted,
    Batch,
    Bell,
    Box,
    Capabilities,
    Claim,
    MailboxStats,
    Query,
    Roster,
    Row,
    Turn,
    Verdict,
)
from afk.messaging.testing.simulation import simulated_time

from .notes import Notes
from .server import Server, Verb

T = TypeVar("T")

SLOW = 0.3
"""Seconds that a call may be held up, each way."""


class Link:
    """A store whose calls go to the server of the story.

    rough: how many calls of 1 go wrong somehow. deaf: how many bells of 1 never ring.
    """

    poll = 2.0
    capabilities = Capabilities(durability="memory", shared=True, renews_when_blocked=True)

    def __init__(self, server: Server, notes: Notes, chance: random.Random) -> None:
        self._server = server
        self._notes = notes
        self._chance = chance
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._bells = 0
        self.rough = self.deaf = 0.0
        self.down_until = 0.0
        self._held: dict[str, float] = {}
        self.gone = False
        """Its process is: nothing that this one still does reaches the server."""

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close: the server goes on."""

    # -- the verbs -----------------------------------------------------------------------

    async def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
        """Cancelled before it took effect, it may take effect all the same."""
        turns = tuple([_stamped(turn) for turn in turns])
        held = {
            turn.token: turn.outcome.seconds
            for turn in turns
            if turn.token and isinstance(turn.outcome, Extend) and turn.outcome.hold
        }

        def put() -> tuple[Verdict, ...]:
            self._held |= held
            verdicts = self._server.put(turns)
            for turn, verdict in zip(turns, verdicts, strict=True):
                if turn.token and verdict.refusal:  # so it will come again
                    self._notes.note("fault", outcome=f"turn refused: {verdict.refusal.kind}")
            return verdicts

        try:
            return await self._call(put)
        except _Unsent:
            if self._chance.random() < 0.5 and not self.gone:
                put()
                self._unheld(held)
            raise asyncio.CancelledError from None
        except _Gone:
            return tuple(
                Verdict(None, tuple(Accepted(send.id) for send in turn.sends)) for turn in turns
            )
        except (StoreError, asyncio.CancelledError):
            self._unheld(held)
            raise

    async def claim(self, claim: Claim) -> Batch:
        """Cancelled after it took effect, what it took is given back."""
        held: dict[str, float] = {}
        taken_at: list[float] = []

        def take() -> Batch:
            batch = self._server.claim(replace(claim, take=False))
            held.update({leased.token or "": claim.lease for leased in batch.leased})
            if claim.hold:
                self._held |= held
            taken_at.append(self._notes.now())
            return batch

        try:
            batch = await self._call(take)
        except _Gone:
            return Batch()
        except asyncio.CancelledError as error:
            if not self.gone:
                self._server.put(tuple(Turn(token=each, outcome=GIVE_BACK) for each in held))
            raise asyncio.CancelledError from error
        except StoreError:
            if claim.hold:
                self._unheld(held)
            raise
        if held and self._notes.now() > taken_at[0]:  # the lease is older than who has it knows
            self._notes.note("fault", outcome="a claim was answered late")
        return batch

    def cut(self) -> None:
        """The process is killed. What it held is held no more, and its lease runs out."""
        left = {token: lease * self._chance.random() for token, lease in self._held.items()}
        self._unheld(left)
        self.gone = True

    def _unheld(self, leases: dict[str, float]) -> None:
        """Nobody renews these. The memory store, which knows no renewals, must be told so; if the
        lease was lost meanwhile, that changes nothing."""
        for token, seconds in leases.items() if not self.gone else ():
            self._server.put((Turn(token=token, outcome=Extend(seconds, hold=0.0)),))

    async def bind(self, box: Box) -> Box:
        """Create or find a mailbox."""
        if box.ordered:
            self._server.order(box.name)
        return await self._read(lambda: self._server.ask(self._server.store.bind(box)), box)

    async def unbind(self, name: str) -> tuple[str, ...]:
        """Close a mailbox."""
        return await self._read(lambda: self._server.ask(self._server.store.unbind(name)), ())

    async def agents(self) -> Roster:
        """The directory."""
        store = self._server.store
        return await self._read(lambda: self._server.ask(store.agents()), Roster(0, {}))

    async def counts(self, mailbox: str | None = None) -> dict[str, MailboxStats]:
        """The counts."""
        return await self._read(lambda: self._server.ask(self._server.store.counts(mailbox)), {})

    async def browse(self, query: Query) -> list[Row]:
        """Rows."""
        return await self._read(lambda: self._server.ask(self._server.store.browse(query)), [])

    async def amend(self, verb: Verb, ids: tuple[str, ...], agent: str | None) -> int:
        """Change messages."""
        return await self._read(lambda: self._server.amend(verb, ids, agent), 0)

    def listen(self, topic: str) -> Bell:
        """A bell that may never ring by itself."""
        self._bells += 1
        lost = self._chance.random() < self.deaf
        heard = f"lost {topic}" if lost else topic
        return _Bell(self, self._server.listen(heard), self._bells)

    # -- what may happen to a call -------------------------------------------------------

    async def _read(self, work: Callable[[], T], gone: T) -> T:
        try:
            return await self._call(work)
        except _Unsent:
            raise asyncio.CancelledError from None
        except _Gone:
            return gone

    async def _call(self, work: Callable[[], T]) -> T:
        """Calls take effect in the order they were begun; their answers come in any."""
        if self.gone:
            raise _Gone
        if self._chance.random() >= self.rough and not self._waiting:
            if asyncio.get_running_loop().time() < self.down_until:
                raise self._failure("down")
            return work()
        try:
            await self._wait_for_turn()
        except asyncio.CancelledError:
            raise _Unsent from None
        answer = work()
        await self._on_the_way_back()
        return answer

    async def _wait_for_turn(self) -> None:
        self._waiting += 1
        try:
            async with self._turn:
                if self._chance.random() < 0.6:
                    await asyncio.sleep(self._chance.random() * SLOW)
                if self.gone:
                    raise _Gone
                if self._chance.random() < 0.25:
                    raise self._failure("before")
        finally:
            self._waiting -= 1

    async def _on_the_way_back(self) -> None:
        if self._chance.random() < 0.3:
            await asyncio.sleep(self._chance.random() * SLOW)
        if self._chance.random() < 0.35:
            raise self._failure("after")

    def _failure(self, when: str) -> StoreError:
        self._notes.note("fault", outcome=f"store error, {when}")
        return StoreError(f"simulated, {when}")


class _Gone(Exception):
    """The process is."""


class _Unsent(asyncio.CancelledError):
    """Cancelled before the call took effect."""


class _Bell:
    """A bell of one process; in no set does its place depend on its address."""

    def __init__(self, link: Link, bell: Bell, number: int) -> None:
        self._link = link
        self._bell = bell
        self._number = number

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other

    async def wait(self, timeout: float) -> bool:
        return await self._bell.wait(timeout)

    def ring(self) -> None:
        if not self._link.gone:
            self._bell.ring()

    def close(self) -> None:
        if self._link.gone:  # a dead process passes nothing on
            self._bell.rung = False  # type: ignore[attr-defined]
        self._bell.close()


def _stamped(turn: Turn) -> Turn:
    """The turn with simulated times in its messages: theirs are of the real clock."""
    if not turn.sends:
        return turn
    now = simulated_time()
    return replace(
        turn,
        sends=tuple(
            replace(send, body=replace(send.body, timestamp=now))
            if isinstance(send.body, Record)
            else send
            for send in turn.sends
        ),
    )
