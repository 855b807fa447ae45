"""The NATS store: the port's verbs as operations in a log, or as looks at what it led to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from msgspec.structs import replace

from ...errors import ConfigurationError, UnknownAgentError
from ...lifecycle import Extend
from ...store import (
    Batch,
    Bell,
    Box,
    Capabilities,
    Claim,
    Durability,
    MailboxStats,
    Query,
    Roster,
    Row,
    Turn,
    Verdict,
)
from ..opening import Opening
from ..terms import check_terms
from .presence import Presence
from .steps import Amend, Bind, Put, Take, Unbind, as_data, is_ack
from .url import place_of

SEEN = 30.0
"""Seconds for which a mailbox's `last_seen` may lag: an idle consumer must not write."""


class NATSA2ADeliveryStore:
    """Deliveries in a JetStream stream (NATS 2.12 or newer), shared by any number of machines.

    url_or_client: a nats:// or tls:// URL, or a nats.aio.client.Client whose settings are taken
    over; connections of the store's own are made. replicas: copies of the stream when it is made;
    by default three in a cluster, else one. durability: what the servers are known to give, if
    that is more than they tell. patience: seconds a call waits for the server before it fails.
    clock: seconds since the epoch, for tests; the server's by default.
    """

    poll = 30.0

    def __init__(
        self,
        url_or_client: Any,
        *,
        namespace: str = "afk",
        replicas: int | None = None,
        durability: Durability | None = None,
        patience: float = 10.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        check_terms(namespace, durability, patience)
        if replicas is not None and not 1 <= replicas <= 5:
            raise ConfigurationError(f"replicas: {replicas!r} is not a number from 1 to 5")
        self._here = Presence(
            place_of(url_or_client), namespace, replicas, durability, patience, clock
        )
        self._opening = Opening(self._here.open, self._here.close, hasty=True)

    @property
    def capabilities(self) -> Capabilities:
        """What the servers give; known once it is open."""
        return self._here.capabilities

    async def open(self) -> None:
        """Connect, and read the log; each open is matched by a close."""
        await self._opening.open()

    async def close(self) -> None:
        """The last close ends the thread and lets go of the connections."""
        await self._opening.close()

    # -- delivering ----------------------------------------------------------------------

    async def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
        """Each turn in order, all or nothing."""
        if not turns:
            return ()
        ops = [Put(turn if is_ack(turn) else as_data(self._said(turn))) for turn in turns]
        self._here.foretell(turns)
        try:
            verdicts: list[Verdict] = await self._here.link.lane.do(*ops)
        finally:
            self._here.landed(turns)
        for turn, verdict in zip(turns, verdicts, strict=True):
            if verdict.refusal is None:
                self._here.keeper.settled(turn)
        return self._here.with_untold(verdicts)

    def _said(self, turn: Turn) -> Turn:
        """What is renewed is this process's affair, and no matter of the log."""
        outcome = turn.outcome
        if type(outcome) is not Extend:
            return turn
        seconds = outcome.seconds
        if outcome.hold is None and turn.token in self._here.keeper:
            # What is held stays held: an earlier end would be put off by the next renewal.
            seconds = max(seconds, self._here.lease_left(turn.token or ""))
        return replace(turn, outcome=Extend(seconds))

    async def claim(self, claim: Claim) -> Batch:
        """Let time pass, then lease the first ready messages; nothing is written for nothing."""
        here = self._here
        known = here.foretold(claim.mailbox) or self._worthwhile(claim, here.link.now())
        if not known and not await here.catch_up(claim.mailbox):
            if claim.limit and claim.mailbox not in here.ledger.shelves:
                raise UnknownAgentError(claim.mailbox)
            if not self._worthwhile(claim, here.link.now()):
                return here.batch(())
        asked = asyncio.get_running_loop().time()
        [batch] = await here.link.lane.do(Take(replace(claim, hold=None, take=False)))
        if batch.leased and asyncio.get_running_loop().time() - asked > claim.lease / 2:
            batch = await self._still_held(batch)
        here.keeper.claimed(claim, batch.leased)
        return here.batch(batch.leased, batch.died)

    async def _still_held(self, batch: Batch) -> Batch:
        """An answer that waited for a connection may be old: without what is another's by now."""
        try:
            await self._here.link.fresh()
        except BaseException:
            self._here.link.lane.undo([batch])
            raise
        held = self._here.ledger.held
        return replace(
            batch, leased=tuple([each for each in batch.leased if held(each.token or "")])
        )

    def _worthwhile(self, claim: Claim, now: float) -> bool:
        """Whether, as far as this process knows, the claim would change anything."""
        ledger = self._here.ledger
        shelf = ledger.shelves.get(claim.mailbox)
        if claim.limit and shelf is None:
            return False
        if ledger.next_due() <= now:
            return True
        return shelf is not None and (
            shelf.has_ready or shelf.last_seen is None or now - shelf.last_seen > SEEN
        )

    # -- the directory -------------------------------------------------------------------

    async def bind(self, box: Box) -> Box:
        """Create the mailbox, or return it as it was created."""
        await self._here.link.fresh()
        shelf = self._here.ledger.shelves.get(box.name)
        if shelf is not None:
            return shelf.box
        bound: Box
        [bound] = await self._here.link.lane.do(Bind(box))
        return bound

    async def unbind(self, name: str) -> tuple[str, ...]:
        """Refuse new mail, then bury what waits."""
        died: tuple[str, ...]
        [died] = await self._here.link.lane.do(Unbind(name))
        return died

    async def agents(self) -> Roster:
        """The directory now."""
        await self._here.link.fresh()
        return self._here.ledger.roster()

    # -- inspecting ----------------------------------------------------------------------

    async def counts(self, mailbox: str | None = None) -> dict[str, MailboxStats]:
        """The counts of every registered mailbox, or of this one."""
        now = await self._here.link.fresh()
        return self._here.ledger.counts(mailbox, now)

    async def browse(self, query: Query) -> list[Row]:
        """Rows as they are."""
        if query.ids is not None:
            rows = self._here.ledger.browse(query, self._here.link.now())
            if len(rows) == len(query.ids) and all(row.answer is not None for row in rows):
                return rows  # an answer is never taken back: no need to ask whether there is more
        now = await self._here.link.fresh()
        return self._here.ledger.browse(query, now)

    async def amend(
        self, verb: Literal["cancel", "redrive", "discard"], ids: tuple[str, ...], agent: str | None
    ) -> int:
        """Change these messages, or all dead ones of the agent."""
        changed: int
        [changed] = await self._here.link.lane.do(Amend(verb, ids, agent))
        return changed

    # -- waking those who wait -----------------------------------------------------------

    def listen(self, topic: str) -> Bell:
        """Hear of a topic, after `open`."""
        return self._here.listen(topic)
