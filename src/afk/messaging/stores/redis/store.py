"""The Redis store: the port's verbs as scripts, each one atomic step on the server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any, Literal

from redis.asyncio.connection import AbstractConnection

from ...errors import ConfigurationError, UnknownAgentError
from ...hints import Bells
from ...lifecycle import Again, Dead, Done, Extend
from ...log import log
from ...messages import check_name
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
from . import codec, look, scripts
from .ears import Ears
from .gather import Gathered
from .keeper import Keeper
from .link import Args, Link
from .place import Place, place_of
from .server import STRENGTH, greet, promised

AMENDED = {"cancel": 20, "redrive": 100, "discard": 100}
"""Messages changed by one script, at most: a cancelled one is looked for in its line."""
COUNTED = 200
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
        try:
            check_name(namespace, "namespace")
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        if durability is not None and durability not in STRENGTH:
            raise ConfigurationError(
                f"durability: {durability!r} is not one of {', '.join(STRENGTH)}"
            )
        self._place = client if isinstance(client, Place) else place_of(client)
        self._prefix = f"afk:{{{namespace}}}:"
        self._wanted = durability
        self._patience = patience
        self._clock = clock
        self._epoch = ""
        self._me = secrets.token_hex(8)
        self._capabilities = Capabilities(
            durability=durability or "memory", shared=True, renews_when_blocked=True
        )
        self._bells = Bells()
        self._roster = Roster(-1, {})
        self._untold: list[str] = []
        self._users = 0
        self._opening: asyncio.Task[None] | None = None
        self._looking: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop
        self._link: Link
        self._ears: Ears
        self._keeper: Keeper

    @property
    def capabilities(self) -> Capabilities:
        """What the server gives; known once it is open."""
        return self._capabilities

    # -- life ----------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect; each open is matched by a close."""
        self._users += 1
        opening = self._opening
        if opening is None or (opening.done() and opening.exception() is not None):
            opening = self._opening = asyncio.create_task(self._start())
        try:
            await asyncio.shield(opening)
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoch = ""
        self._link = Link(self._place, self._greet, self._patience, self._heard)
        self._ears = Ears(
            self._place, f"{self._prefix}wake:{self._me}", self._bells, self._start_look
        )
        self._keeper = Keeper(self._keepers_link, self._call)
        await self._link.open()

    async def close(self) -> None:
        """The last close ends the thread and lets go of the connections."""
        self._users -= 1
        if self._users == 0 and self._opening is not None:
            opening, self._opening = self._opening, None
            await asyncio.wait([opening])
            if opening.exception() is None:
                for looking in self._looking:
                    looking.cancel()
                await self._ears.close()
                await self._keeper.close()
                await self._link.close()

    async def _greet(self, connection: AbstractConnection) -> None:
        server = await greet(connection, self._prefix, self._epoch or secrets.token_hex(8))
        durability, asserted = promised(server, self._wanted)
        if self._epoch and durability != self._capabilities.durability:
            log.warning("%s: durability is now %r", self._place.shown, durability)
        self._epoch = self._epoch or server.epoch
        self._capabilities = Capabilities(
            durability=durability, asserted=asserted, shared=True, renews_when_blocked=True
        )

    def _keepers_link(self) -> Link:
        async def greet_again(connection: AbstractConnection) -> None:
            await greet(connection, self._prefix, self._epoch)

        def heard(answer: Any, waited_for: bool) -> None:
            self._loop.call_soon_threadsafe(self._heard, answer, waited_for)

        return Link(self._place, greet_again, self._patience, heard)

    # -- calling scripts -----------------------------------------------------------------

    def _call(self, script: str, *args: Any) -> Args:
        now = "" if self._clock is None else round(self._clock() * 1000)
        return (
            "EVALSHA",
            scripts.digest(script),
            1,
            self._prefix,
            now,
            self._epoch,
            self._me,
            *args,
        )

    async def _ask(self, script: str, *args: Any, repeatable: bool = False) -> tuple[Any, ...]:
        """What the script answers, its news told: (who died, ...)."""
        answer = await self._link.ask(self._call(script, *args), repeatable=repeatable)
        died, _, *rest = answer
        return codec.texts(died), *rest

    def _heard(self, answer: Any, waited_for: bool) -> None:
        """The news of an answer, whoever asked, and whether they still wait for it."""
        died, topics, *_ = answer
        if topics:
            self._ears.told(codec.texts(topics))
        if died and not waited_for:
            self._untold += codec.texts(died)

    async def _look(self, *args: Any) -> list[Any]:
        _, now, rows = await self._ask("look", *args, repeatable=True)
        return [now, rows]

    # -- delivering ----------------------------------------------------------------------

    async def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
        """Each turn in order, all or nothing."""
        future: asyncio.Future[tuple[list[bytes], list[Any]]] = self._loop.create_future()
        packed = codec.packed(turns, self._keeper)
        last = self._link.last
        if not (isinstance(last, Gathered) and last.add(packed, future)):
            gathered = Gathered()
            gathered.add(packed, future)
            self._link.submit(lambda: self._call("put", *gathered.args()), gathered)
        dead, answers = await future
        died = codec.texts(dead)
        verdicts = [codec.verdict(answer) for answer in answers]
        for index, (turn, verdict) in enumerate(zip(turns, verdicts, strict=True)):
            if verdict is None:  # its mailbox is full, and time is still passing
                [verdicts[index]] = await self.put((turn,))
            elif verdict.refusal is None:
                self._note(turn)
        first = verdicts[0]
        assert first is not None
        return (
            Verdict(first.refusal, first.accepted, (*died, *first.died)),
            *(verdict for verdict in verdicts[1:] if verdict is not None),
        )

    def _note(self, turn: Turn) -> None:
        """What an accepted outcome means for the renewal of its lease."""
        if turn.token is None:
            return
        if isinstance(turn.outcome, Extend):
            if turn.outcome.hold:
                self._keeper.hold([(turn.token, turn.outcome.seconds, turn.outcome.hold)])
            elif turn.outcome.hold is not None:
                self._keeper.release(turn.token)
        elif isinstance(turn.outcome, Done | Again | Dead):
            self._keeper.release(turn.token)

    async def claim(self, claim: Claim) -> Batch:
        """Let time pass, then lease the first ready messages."""
        topic = MAIL + claim.mailbox
        waiters = min(self._bells.count(topic), 2) if claim.limit else 0
        died: list[str] = []
        while True:
            call = self._call("claim", *codec.claim(claim, waiters))
            answer = await self._link.ask(call, undo=self._give_back)
            dead, _, due, status, taken = answer
            died += codec.texts(dead)
            if status != b"again":
                break
        if status == b"unknown":
            raise UnknownAgentError(claim.mailbox)
        if due >= 0 and self._bells:
            self._ears.expect(due / 1000)
        leased = codec.leased(claim.mailbox, taken) if taken else ()
        if claim.hold and leased:
            self._keeper.hold([(each.token or "", claim.lease, claim.hold) for each in leased])
        if self._untold:
            died = self._untold + died
            self._untold = []
        return Batch(leased, tuple(died))

    def _give_back(self, answer: Any) -> Args | None:
        """Undo a claim that nobody waits for any more."""
        *_, taken = answer
        turns = tuple(
            [
                Turn(token=leased.token, outcome=Again(0.0, counts=False))
                for leased in codec.leased("", taken)
            ]
        )
        return self._call("put", *codec.joined([codec.packed(turns, ())])) if turns else None

    # -- the directory -------------------------------------------------------------------

    async def bind(self, box: Box) -> Box:
        """Create the mailbox, or return it as it was created."""
        _, values = await self._ask(
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
            dead, place = await self._ask("directory", "unbind", name, place)
            died += dead
            if place < 0:
                return tuple(died)

    async def agents(self) -> Roster:
        """The directory now; only what changed since the last look is read."""
        known = self._roster.version
        _, version, boxes = await self._ask("directory", "agents", known, repeatable=True)
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
            _, now, answers = await self._ask("counts", *part, repeatable=True)
            counts.update(look.stats(answer, now) for answer in answers)
        return counts

    async def browse(self, query: Query) -> list[Row]:
        """Rows as they are."""
        listens = query.ids is not None and any(
            self._bells.count(FATE + message_id) for message_id in query.ids
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
            dead = Query(mailbox=agent, state="dead", order="ended")
            ids = tuple([row.id for row in await self.browse(dead)])
        changed = 0
        for start in range(0, len(ids), AMENDED[verb]):
            part = ids[start : start + AMENDED[verb]]
            _, number = await self._ask("amend", verb, agent or "", *part)
            changed += number
        return changed

    # -- waking those who wait -----------------------------------------------------------

    def listen(self, topic: str) -> Bell:
        """Hear of a topic, after `open`."""
        bell = self._bells.listen(topic)
        self._ears.awake()
        return bell

    def _start_look(self) -> None:
        looking = asyncio.create_task(self._let_time_pass())
        self._looking.add(looking)
        looking.add_done_callback(self._looking.discard)

    async def _let_time_pass(self) -> None:
        try:
            batch = await self.claim(_SWEEP)
        except Exception as error:  # noqa: BLE001 - the store failed: who waits looks for itself
            log.warning("%s: time was not let pass: %s", self._place.shown, error)
            self._ears.expect(1.0)
            return
        self._untold += batch.died
