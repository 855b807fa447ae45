"""The settling of one delivery."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import Tracer

from afk.messaging.lifecycle import Dead, Extend
from afk.messaging.watching import Step, verb

from . import names
from .carrying import context_of, record_of
from .operation import Operation, about, labels_of
from .sending import place


def settling(tracer: Tracer, step: Step, handled: Context | None) -> Operation | None:
    """The operation, if the turn settles something; handled: the delivery's handling."""
    token, outcome = step.turn.token, step.turn.outcome
    if token is None or outcome is None or isinstance(outcome, Extend):
        return None
    leased = step.leased
    record = record_of(leased.body) if leased else None
    more = about(record, token.rpartition(".")[0], leased.attempt if leased else None)
    if isinstance(outcome, Dead):
        more[names.DEAD_REASON] = outcome.reason
    labels = labels_of(names.SETTLE, verb(outcome), leased.mailbox if leased else None)
    return Operation(
        tracer, labels, more, within=place(record, handled), links=[context_of(record)]
    )
