"""What a send returns: a handle on the message's fate."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic

from .core import Core
from .errors import RequestFailedError, RequestTimeoutError
from .lifecycle import FINAL, State
from .listening import deadline_of, in_time
from .overdue import Deadline
from .records import Body, Record, decode
from .sending import Sent
from .store import FATE, Accepted, Durability, Row, Turn
from .views import M, View


class Receipt(Generic[M]):
    """Proof that a message was accepted, and the way to learn what became of it."""

    def __init__(self, core: Core, view: View[M], record: Record, accepted: Accepted) -> None:
        self._core = core
        self._view = view
        self._record = record
        self.id = accepted.id
        """The message's id; of the first one, if this was a duplicate."""
        self.duplicate = accepted.duplicate
        """True if the key was known: nothing new was stored."""
        self.durability: Durability = core.store.capabilities.durability
        """What the accepted message survives: memory, process or disk."""

    @property
    def message(self) -> M:
        """The message as it was sent."""
        return self._view.read(self._record, "", None)

    async def status(self) -> State | None:
        """Where the message is now; None once the store has let go of it."""
        row = await self._core.row(self.id)
        return None if row is None else row.state

    async def settled(self, timeout: float | None = None) -> str:
        """Wait until it is done, dead or cancelled, and say which; TimeoutError if it is late."""
        row, over = await self._core.fate(self.id, _ended, deadline_of(timeout))
        if not over:
            raise TimeoutError(f"message {self.id} was not settled within {timeout} s")
        return "done" if row is None else row.state

    async def result(self, timeout: float | None = None) -> M:
        """The answer to a request, waiting for it.

        RequestTimeoutError after `timeout` seconds, RequestFailedError if it is dead or gone, or
        its answer cannot be read (`undecodable`).
        """
        return await self._result_by(deadline_of(timeout), timeout)

    async def _result_by(self, deadline: Deadline | None, timeout: float | None) -> M:
        """The same, by a deadline which is `timeout` s after the start."""
        row, over = await self._core.fate(self.id, _answered, deadline)
        if row is not None and row.answer is not None:
            return self._read(row.answer)
        if not over:
            raise RequestTimeoutError(
                f"{self._record.recipient!r} did not answer within {timeout} s", self
            )
        if row is None:
            raise RequestFailedError(f"request {self.id} is not known any more", "gone")
        reason = row.reason or row.state
        error = f": {row.error}" if row.error else ""
        raise RequestFailedError(
            f"request {self.id} ended as {row.state} ({reason}){error}", reason
        )

    def _read(self, body: Body) -> M:
        try:
            answer = decode(body)
            return self._view.read(answer, answer.recipient, None)
        except ValueError as error:
            text = f"the answer to request {self.id} cannot be read: {error}"
            raise RequestFailedError(text, "undecodable") from error

    def __repr__(self) -> str:
        return (
            f"Receipt(id={self.id!r}, duplicate={self.duplicate}, durability={self.durability!r})"
        )


def _ended(row: Row | None) -> bool:
    return row is None or row.state in FINAL


def _answered(row: Row | None) -> bool:
    return row is None or row.answer is not None or row.state in ("dead", "cancelled")


async def request(
    core: Core,
    view: View[M],
    turn: Turn,
    sent: Sent,
    timeout: float,
    again: Callable[[str], Coroutine[Any, Any, None]] | None = None,
) -> M:
    """Send a request, and wait for its answer until its deadline, `timeout` s after the start.

    again: what is done first about one that was sent before, told its id.
    """
    await core.enter_to_send(sent)
    with core.listening(FATE + sent.record.id) as topic:  # before: no answer is missed
        verdict = await core.put(turn, sent)
        receipt = Receipt(core, view, sent.record, verdict.accepted[0])
        if not receipt.duplicate:
            await topic.heard(sent.deadline)
        elif again is not None:
            await in_time(core.store, sent.deadline, again(receipt.id))
    try:
        return await receipt._result_by(sent.deadline, timeout)
    except RequestFailedError as error:
        if error.reason == "expired":  # its ttl is the timeout: nobody took it in time
            raise RequestTimeoutError(
                f"nobody took request {receipt.id} within {timeout} s", receipt
            ) from None
        raise
