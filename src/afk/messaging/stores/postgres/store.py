"""The PostgreSQL store: the port's verbs as calls of functions, each one atomic step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from ...lifecycle import GIVE_BACK
from ...store import (
    FATE,
    MAIL,
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
    Transaction,
    Turn,
    Verdict,
)
from ..opening import Opening
from ..terms import check_terms
from . import codec, lending, look
from .migrations import check_schema
from .place import place_of
from .presence import Presence

AMENDED = 200
"""Messages changed in one call, at most."""


class PostgresA2ADeliveryStore:
    """Deliveries in a PostgreSQL database (14 or newer), shared by any number of machines.

    dsn_or_pool: a `postgresql://` URL, or an asyncpg.Pool, of which connections are acquired, and
    which is not closed. schema: where the tables are; made if they are not there. durability:
    what the server is to give; by default what its settings say. patience: seconds a call waits
    for the server before it fails. clock: seconds since the epoch, for tests; the server's by
    default.
    """

    poll = 300.0

    def __init__(
        self,
        dsn_or_pool: Any,
        *,
        namespace: str = "afk",
        schema: str = "afk",
        durability: Durability | None = None,
        patience: float = 10.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        check_terms(namespace, durability, patience)
        place = place_of(dsn_or_pool)
        self._here = Presence(place, check_schema(schema), namespace, durability, patience, clock)
        self._opening = Opening(self._here.open, self._here.close, hasty=True)

    @property
    def capabilities(self) -> Capabilities:
        """What the server gives; known once it is open."""
        return self._here.capabilities

    async def open(self) -> None:
        """Connect; each open is matched by a close."""
        await self._opening.open()

    async def close(self) -> None:
        """The last close ends the thread and lets go of the connections."""
        await self._opening.close()

    # -- delivering ----------------------------------------------------------------------

    async def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
        """Each turn in order, all or nothing."""
        if not turns:
            return ()
        self._here.bells.foretell(turns)
        verdicts: tuple[Verdict, ...] = await self._here.lane.put(turns)
        for turn, verdict in zip(turns, verdicts, strict=True):
            if verdict.refusal is None:
                self._here.keeper.settled(turn)
        return verdicts

    async def claim(self, claim: Claim) -> Batch:
        """Let time pass, then lease the first ready messages."""
        batch: Batch = await self._here.lane.take(claim, self._give_back)
        self._here.keeper.claimed(claim, batch.leased)
        self._here.tidy()
        if self._here.died:
            batch = Batch(batch.leased, (*self._here.died, *batch.died))
            self._here.died.clear()
        return batch

    def _give_back(self, batch: Batch) -> None:
        """Undo a claim that nobody waits for any more."""
        if batch.died:
            self._here.untold(batch.died)
        if batch.leased:
            self._here.lane.first(
                tuple([Turn(token=each.token, outcome=GIVE_BACK) for each in batch.leased])
            )

    async def begin(self) -> Transaction:
        """A transaction on a connection of its own."""
        return await lending.begin(self._here)

    async def put_within(self, connection: Any, turn: Turn) -> Verdict:
        """Take the turn in the transaction that is open on the caller's connection."""
        return await lending.put_within(self._here, connection, turn)

    # -- the directory -------------------------------------------------------------------

    async def bind(self, box: Box) -> Box:
        """Create the mailbox, or return it as it was created."""
        [row] = await self._here.lane.ask(
            *("bind", box.name, box.ordered, box.capacity, box.max_bytes), repeatable=True
        )
        return self._known(codec.box(row))

    def _known(self, box: Box) -> Box:
        known = self._here.lane.ordered
        (known.add if box.ordered else known.discard)(box.name)
        return box

    async def unbind(self, name: str) -> tuple[str, ...]:
        """Refuse new mail, then bury what waits."""
        [row] = await self._here.lane.ask("unbind", name)
        self._changed(row)
        return tuple(row["died"])

    async def agents(self) -> Roster:
        """The directory now."""
        rows = await self._here.lane.ask("agents", repeatable=True)
        boxes = [self._known(codec.box(row)) for row in rows if row["name"] is not None]
        return Roster(rows[0]["roster"], {box.name: box for box in boxes})

    # -- inspecting ----------------------------------------------------------------------

    async def counts(self, mailbox: str | None = None) -> dict[str, MailboxStats]:
        """The counts of every registered mailbox, or of this one."""
        return await look.counts(self._here.lane, mailbox)

    async def browse(self, query: Query) -> list[Row]:
        """Rows as they are."""
        return await look.browse(self._here.lane, query)

    async def amend(
        self, verb: Literal["cancel", "redrive", "discard"], ids: tuple[str, ...], agent: str | None
    ) -> int:
        """Change these messages, or all dead ones of the agent, slice by slice."""
        if not ids and agent is not None:
            ids = await look.dead(self._here.lane, agent)
        changed = 0
        for start in range(0, len(ids), AMENDED):
            part = list(dict.fromkeys(ids[start : start + AMENDED]))
            digests = await look.digests(self._here.lane, part) if verb == "discard" else {}
            [row] = await self._here.lane.ask(
                "amend", verb, part, agent, [digests.get(message_id) for message_id in part]
            )
            self._changed(row)
            self._here.topics([*map(FATE.__add__, row["changed"])])
            changed += len(row["changed"])
        return changed

    def _changed(self, row: Any) -> None:
        self._here.topics([*map(FATE.__add__, row["died"]), *map(MAIL.__add__, row["ready"])])

    # -- waking those who wait -----------------------------------------------------------

    def listen(self, topic: str) -> Bell:
        """Hear of a topic, after `open`."""
        bell = self._here.bells.listen(topic)
        self._here.ears.awake()
        return bell
