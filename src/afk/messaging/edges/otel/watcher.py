"""What a bus does, as OpenTelemetry tells it. Never what a message says."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Tracer, set_span_in_context

from afk.messaging import Reject, Retry
from afk.messaging.delivery import describe
from afk.messaging.lifecycle import Extend
from afk.messaging.records import Record
from afk.messaging.store import Batch, Claim, Leased, Turn, Verdict
from afk.messaging.watching import Ended, Leases, Step, Told

from . import names
from .carrying import around, context_of, record_of, under
from .instruments import Instruments
from .operation import Operation, about, labels_of
from .sending import Sending, error_type, place
from .settling import settling


class _Put(Struct, frozen=True):
    """A turn under way."""

    turn: Turn
    sending: Sending | None
    settling: Operation | None


class Telemetry:
    """A watcher of one bus or several."""

    def __init__(self, tracer: Tracer, instruments: Instruments) -> None:
        self._tracer = tracer
        self._instruments = instruments
        self._handled: Leases[Context] = Leases()

    # -- turns ---------------------------------------------------------------------------

    def putting(self, steps: tuple[Step, ...]) -> tuple[tuple[Turn, ...], Told]:
        """Begin the spans of sends and settles, and have each message carry on its own."""
        puts = [self._begin(step) for step in steps]

        def told(results: Sequence[Verdict] | BaseException) -> None:
            for number, each in enumerate(puts):
                self._end(each, results if isinstance(results, BaseException) else results[number])

        return tuple(each.turn for each in puts), told

    def _begin(self, step: Step) -> _Put:
        turn = step.turn
        handled = self._handled.get(turn.token or "")
        ends = settling(self._tracer, step, handled)
        if not turn.sends:
            return _Put(turn, None, ends)
        sending = Sending(self._tracer, turn.sends, handled)
        return _Put(replace(turn, sends=sending.sends), sending, ends)

    def _end(self, put: _Put, result: Verdict | BaseException) -> None:
        if put.sending is not None:
            put.sending.end(result, self._instruments)
        if put.settling is not None:
            error = error_type(result)
            if error is not None:
                put.settling.failed(error)
            put.settling.end(self._instruments)
        if isinstance(result, Verdict):
            self._instruments.died(len(result.died))
            if not isinstance(put.turn.outcome, Extend):
                self._handled.pop(put.turn.token or "", None)

    # -- claims --------------------------------------------------------------------------

    def claimed(self, claim: Claim, batch: Batch | Exception, seconds: float) -> None:
        """A claim is a span if the caller gets a message, or an error."""
        if isinstance(batch, Batch):
            self._instruments.died(len(batch.died))
        if claim.limit and (isinstance(batch, Exception) or batch.leased):
            self._received(claim, batch, seconds)

    def _received(self, claim: Claim, batch: Batch | Exception, seconds: float) -> None:
        labels = labels_of(names.RECEIVE, names.RECEIVE, claim.mailbox)
        error = error_type(batch) if isinstance(batch, Exception) else None
        if isinstance(batch, Batch):
            self._instruments.consumed(len(batch.leased), labels)
        if claim.hold is not None:  # of a worker: what it passes on has a span when it is handled
            if error is not None:
                labels[names.ERROR_TYPE] = error
            self._instruments.took(seconds, labels)
            return
        leased = batch.leased[0] if isinstance(batch, Batch) else None  # callers claim one
        record = record_of(leased.body) if leased else None
        receiving = Operation(
            self._tracer,
            labels,
            about(record, leased.id, leased.attempt) if leased else {},
            within=place(record, None),
            links=[context_of(record)],
            started=seconds,
        )
        if error is not None:
            receiving.failed(error)
        receiving.end(self._instruments)

    # -- handling ------------------------------------------------------------------------

    def handling(self, leased: Leased, record: Record) -> Ended:
        """A span below the message's own, and current while it is handled."""
        created, here = context_of(record), around()
        handling = Operation(
            self._tracer,
            labels_of(names.PROCESS, names.PROCESS, leased.mailbox),
            about(record, leased.id, leased.attempt),
            within=under(created) if created else None,
            links=[created, here if created else None],
        )
        context = set_span_in_context(handling.span)
        mark = attach(context)
        if leased.token is not None:
            self._handled.keep(leased.token, context)

        def ended(error: BaseException | None) -> None:
            detach(mark)
            if error is not None:
                handling.failed(type(error).__name__, describe(error))
                if isinstance(error, Exception) and not isinstance(error, (Retry, Reject)):
                    handling.span.record_exception(error)
            handling.end(self._instruments)

        return ended
