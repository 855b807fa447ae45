"""The Redis store: the port's verbs as scripts, each one atomic step on the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from msgspec.structs import replace

from ...errors import UnknownAgentError
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
    Turn,
    Verdict,
)
from ..opening import Opening
from ..terms import check_terms
from . import codec, look
from .calls import Args
from .gather import MOST_BYTES, Gathered
from .place import Place, place_of
from .presence import Presence

AMENDED = {"cancel": 20, "redrive": 100, "discard": 100}
"""Messages changed by one script, at most: a cancelled one is looked for in its line."""
COUNTED = 200
Answer = asyncio.Future[tuple[list[bytes], list[Any]]]
_SWEEP = Claim(mailbox="", limit=0)


class RedisA2ADeliveryStore:
    """Deliveries on a Redis server (6.2 or newer; Valkey too), shared by any number of machines.

    client: a redis.asyncio.Redis, redis.Redis, RedisCluster, or one of a Sentinel; its settings
    are taken over, and connections of the store's own are made. durability: what the server is to
    give; by default what it says it gives. patience: seconds a call waits for the server before
    it fails. clock: seconds since the epoch, for tests; the server's by default.
    """

    poll = 30.0

    def __init__(
        self,
        client: Any,
        *,
        namespace: str = "afk",
        durability: Durability | None = None,
        patience: float = 10.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        check_terms(namespace, durability, patience)
        place = client if isinstance(client, Place) else place_of(client)
        prefix = f"afk:{{{namespace}}}:"
        self._here = Presence(place, prefix, durability, patience, clock, self._let_time_pass)
        self._roster = Roster(-1, {})
        self._opening = Opening(self._start, self._here.close, hasty=True)

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

    async def _start(self) -> None:
        self._roster = Roster(-1, {})
        await self._here.open()

    # -- delivering ----------------------------------------------------------------------

    async def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
        """Each turn in order, all or nothing."""
        if not turns:
            return ()
        here, loop = self._here, asyncio.get_running_loop()
        packed = codec.packed(turns, here.keeper, here.bells)
        if packed.size > MOST_BYTES and len(turns) > 1:
            half = len(turns) // 2
            return (*await self.put(turns[:half]), *await self.put(turns[half:]))
        here.bells.foretell(turns)
        future: Answer = loop.create_future()
        last = here.link.last
        now = loop.time()
        if not (isinstance(last, Gathered) and last.add(packed, future, now)):
            gathered = Gathered(now)
            gathered.add(packed, future, now)
            here.link.submit(lambda: here.call("put", *gathered.args()), gathered)
        dead, answers = await future
        died = codec.texts(dead) if dead else ()
        verdicts = [codec.verdict(answer) for answer in answers]
        for index, (turn, verdict) in enumerate(zip(turns, verdicts, strict=True)):
            if verdict is None:  # its mailbox is full, and time is still passing
                [verdicts[index]] = await self.put((turn,))
            elif verdict.refusal is None:
                here.keeper.settled(turn)
        told = [verdict for verdict in verdicts if verdict is not None]
        if died:
            told[0] = replace(told[0], died=(*died, *told[0].died))
        return tuple(told)

    async def claim(self, claim: Claim) -> Batch:
        """Let time pass, then lease the first ready messages."""
        topic = MAIL + claim.mailbox
        waiters = min(self._here.bells.count(topic), 2) if claim.limit else 0
        died: list[str] = []
        while True:
            call = self._here.call("claim", *codec.claim(claim, waiters))
            answer = await self._here.link.ask(call, undo=self._give_back)
            dead, _, due, status, taken = answer
            died += codec.texts(dead)
            if status != b"again":
                break
        if status == b"unknown":
            raise UnknownAgentError(claim.mailbox)
        if due >= 0 and self._here.bells:
            self._here.ears.expect(due / 1000)
        leased = codec.leased(claim.mailbox, taken) if taken else ()
        self._here.keeper.claimed(claim, leased)
        if self._here.untold:
            died = self._here.untold + died
            self._here.untold = []
        return Batch(leased, tuple(died))

    def _give_back(self, answer: Any) -> Args | None:
        """Undo a claim that nobody waits for any more."""
        *_, taken = answer
        turns = tuple(
            [Turn(token=leased.token, outcome=GIVE_BACK) for leased in codec.leased("", taken)]
        )
        return (
            self._here.call("put", *codec.joined([codec.packed(turns, (), ())])) if turns else None
        )

    # -- the directory -------------------------------------------------------------------

    async def bind(self, box: Box) -> Box:
        """Create the mailbox, or return it as it was created."""
        _, values = await self._here.ask(
            "directory",
            *("bind", box.name, int(box.ordered), box.capacity, box.max_bytes),
            repeatable=True,
        )
        return codec.box(box.name, values)

    async def unbind(self, name: str) -> tuple[str, ...]:
        """Refuse new mail, then bury what waits, slice by slice."""
        died: list[str] = []
        place = -1
        while True:
            dead, place = await self._here.ask("directory", "unbind", name, place)
            died += dead
            if place < 0:
                return tuple(died)

    async def agents(self) -> Roster:
        """The directory now; only what changed since the last look is read."""
        known = self._roster.version
        _, version, boxes = await self._here.ask("directory", "agents", known, repeatable=True)
        if version != known:
            named = [(name.decode(), values) for name, *values in boxes]
            self._roster = Roster(version, {name: codec.box(name, v) for name, v in named})
        return self._roster

    # -- inspecting ----------------------------------------------------------------------

    async def counts(self, mailbox: str | None = None) -> dict[str, MailboxStats]:
        """The counts of every registered mailbox, or of this one."""
        names = list((await self.agents()).boxes) if mailbox is None else [mailbox]
        counts: dict[str, MailboxStats] = {}
        for start in range(0, len(names), COUNTED):
            part = names[start : start + COUNTED]
            _, now, answers = await self._here.ask("counts", *part, repeatable=True)
            counts.update(look.stats(answer, now) for answer in answers)
        return counts

    async def _look(self, *args: Any) -> list[Any]:
        _, now, rows = await self._here.ask("look", *args, repeatable=True)
        return [now, rows]

    async def browse(self, query: Query) -> list[Row]:
        """Rows as they are."""
        listens = query.ids is not None and any(
            self._here.bells.count(FATE + message_id) for message_id in query.ids
        )
        ordered = False
        if query.order == "delivery" and query.mailbox is not None:
            box = (await self.agents()).boxes.get(query.mailbox)
            ordered = box is not None and box.ordered
        return await look.browse(self._look, query, listens, ordered)

    async def amend(
        self, verb: Literal["cancel", "redrive", "discard"], ids: tuple[str, ...], agent: str | None
    ) -> int:
        """Change these messages, or all dead ones of the agent, slice by slice."""
        if not ids and agent is not None:
            index = (f"dead:{agent}", "ended")
            dead = look.walk(self._look, index, bodies=False)
            ids = tuple([found.id async for found in dead])
        changed = 0
        for start in range(0, len(ids), AMENDED[verb]):
            part = ids[start : start + AMENDED[verb]]
            _, number = await self._here.ask("amend", verb, agent or "", *part)
            changed += number
        return changed

    # -- waking those who wait -----------------------------------------------------------

    def listen(self, topic: str) -> Bell:
        """Hear of a topic, after `open`."""
        bell = self._here.bells.listen(topic)
        self._here.ears.awake()
        return bell

    async def _let_time_pass(self) -> tuple[str, ...]:
        return (await self.claim(_SWEEP)).died
