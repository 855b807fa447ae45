"""A log of what a bus does: a record for each message sent, received, handled and settled."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypeVar

from afk.messaging import MessageBus
from afk.messaging.lifecycle import Extend
from afk.messaging.log import ids, log, printable
from afk.messaging.records import Body, Record, decode
from afk.messaging.store import Batch, Claim, Leased, Turn, Verdict
from afk.messaging.watching import Ended, Step, Told, verb

B = TypeVar("B", bound=MessageBus)


def instrument(bus: B, *, level: int = logging.INFO, bodies: bool = False) -> B:
    """Have this bus write to the logger `afk.messaging` what it does, and return it.

    bodies: contents too, as JSON. Before mailboxes are served.
    """
    bus.watch(_Journal(level, bodies))
    return bus


class _Journal:
    def __init__(self, level: int, bodies: bool) -> None:
        self._level = level
        self._bodies = bodies

    def putting(self, steps: tuple[Step, ...]) -> tuple[tuple[Turn, ...], Told]:
        turns = tuple(step.turn for step in steps)

        def told(results: Sequence[Verdict] | BaseException) -> None:
            if not isinstance(results, BaseException):
                for step, verdict in zip(steps, results, strict=True):
                    self._put(step, verdict)

        return turns, told

    def _put(self, step: Step, verdict: Verdict) -> None:
        if verdict.refusal is not None:  # the caller is told by an exception
            return
        turn, leased = step.turn, step.leased
        if turn.token and turn.outcome and not isinstance(turn.outcome, Extend):
            self._settled(verb(turn.outcome), turn.token, leased)
        for send, accepted in zip(turn.sends, verdict.accepted, strict=True):
            what = "sent again" if accepted.duplicate else "sent"
            self._say(what, send.mailbox, accepted.id, _record(send.body))

    def _settled(self, what: str, token: str, leased: Leased | None) -> None:
        message_id = token.rpartition(".")[0]
        if leased is None:  # claimed elsewhere
            self._say(what, None, message_id, None)
        else:
            self._say(what, leased.mailbox, message_id, _record(leased.body), leased.attempt)

    def claimed(self, claim: Claim, batch: Batch | Exception, seconds: float) -> None:
        if isinstance(batch, Batch):
            for leased in batch.leased:
                record = _record(leased.body)
                self._say("received", claim.mailbox, leased.id, record, leased.attempt)

    def handling(self, leased: Leased, record: Record) -> Ended:
        of = (leased.mailbox, leased.id, record, leased.attempt)
        self._say("handling", *of)
        return lambda error: self._say("handled" if error is None else "failed", *of)

    def _say(
        self,
        what: str,
        mailbox: str | None,
        message_id: str,
        record: Record | None,
        attempt: int | None = None,
    ) -> None:
        if not log.isEnabledFor(self._level):
            return
        extra = ids(mailbox, message_id, record.correlation_id if record else None, attempt)
        extra["event"] = what
        text = "%s: %s %s"
        if self._bodies and record is not None:
            extra["body"] = printable(bytes(record.content).decode())
            log.log(
                self._level, text + ": %s", mailbox, what, message_id, extra["body"], extra=extra
            )
        else:
            log.log(self._level, text, mailbox, what, message_id, extra=extra)


def _record(body: Body) -> Record | None:
    try:
        return decode(body)
    except ValueError:
        return None
