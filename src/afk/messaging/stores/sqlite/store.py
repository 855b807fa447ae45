"""The SQLite store: the port's verbs as operations of one engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from ...errors import ConfigurationError
from ...hints import Bells
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
    Transaction,
    Turn,
    Verdict,
)
from ..opening import Opening
from ..terms import check_namespace
from . import look, mend
from .claim import claim, give_back
from .engine import Engine
from .put import take_turns

_SYNCHRONOUS = {"disk": "FULL", "process": "NORMAL"}


class SQLiteA2ADeliveryStore:
    """Deliveries in one file, shared by the processes of one machine.

    durability: `disk` (every accepted message survives power loss) or `process` (faster; the
    last ones before a power loss may be gone). patience: seconds a call waits for other
    processes before it fails. clock: seconds since the epoch, for tests.
    """

    poll = 30.0

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        durability: Durability = "disk",
        namespace: str = "afk",
        patience: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if durability not in _SYNCHRONOUS:
            raise ConfigurationError(
                f"durability: {durability!r} is not for a file; use disk or process (a file"
                " outlives its process), or memory:// for messages that need not last"
            )
        check_namespace(namespace)
        if str(path) in ("", ":memory:"):
            raise ConfigurationError(f"path: {path!r} is no file; use memory:// for no file")
        self.path = Path(fspath(path))
        self._clock = clock
        self._namespace = namespace
        self._patience = patience
        self._synchronous = _SYNCHRONOUS[durability]
        self.capabilities = Capabilities(
            durability=durability, shared=True, renews_when_blocked=True, transactions=True
        )
        self._bells = Bells()
        self._engine: Engine
        self._opening = Opening(self._start, self._stop)

    # -- life ----------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the file; each open is matched by a close."""
        await self._opening.open()

    async def close(self) -> None:
        """The last close ends the thread and closes the file."""
        await self._opening.close()

    async def _start(self) -> None:
        self._engine = Engine(
            self.path, self._synchronous, self._namespace, self._clock, self._bells, self._patience
        )
        await self._engine.start()

    async def _stop(self) -> None:
        await self._engine.stop()

    # -- the verbs -----------------------------------------------------------------------

    async def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
        """Each turn in order, all or nothing."""
        self._bells.foretell(turns)
        verdicts: tuple[Verdict, ...] = await self._engine.do(lambda step: take_turns(step, turns))
        return verdicts

    async def claim(self, request: Claim) -> Batch:
        """Let time pass, then lease the first ready messages."""
        engine = self._engine
        batch: Batch = await engine.do(lambda step: claim(step, request), undo=give_back)
        if engine.untold:
            batch = replace(batch, died=(*engine.untold, *batch.died))
            engine.untold.clear()
        return batch

    async def bind(self, box: Box) -> Box:
        """Create the mailbox, or return it as it was created."""
        bound: Box = await self._engine.do(lambda step: mend.bind(step, box))
        return bound

    async def unbind(self, name: str) -> tuple[str, ...]:
        """Refuse new mail, then bury what waits."""
        died: tuple[str, ...] = await self._engine.do(lambda step: mend.unbind(step, name))
        return died

    async def agents(self) -> Roster:
        """The directory now."""
        roster: Roster = await self._engine.do(look.roster, writes=False)
        return roster

    async def counts(self, mailbox: str | None = None) -> dict[str, MailboxStats]:
        """The counts of every registered mailbox, or of this one."""
        counts: dict[str, MailboxStats] = await self._engine.do(
            lambda step: look.counts(step, mailbox), writes=False
        )
        return counts

    async def browse(self, query: Query) -> list[Row]:
        """Rows as they are."""
        rows: list[Row] = await self._engine.do(lambda step: look.browse(step, query), writes=False)
        return rows

    async def amend(
        self, verb: Literal["cancel", "redrive", "discard"], ids: tuple[str, ...], agent: str | None
    ) -> int:
        """Change these messages, or all dead ones of the agent."""
        changed: int = await self._engine.do(lambda step: mend.amend(step, verb, ids, agent))
        return changed

    async def begin(self) -> Transaction:
        """A write transaction on the store's own connection, lent to the caller."""
        return await self._engine.session()

    def listen(self, topic: str) -> Bell:
        """Hear of a topic, after `open`."""
        bell = self._bells.listen(topic)
        self._engine.lookout.awake()
        return bell
