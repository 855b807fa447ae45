"""The sends of one turn: a span that each message carries on, whether there is one or are many."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Tracer

from afk.messaging.records import Record
from afk.messaging.refusals import error_of
from afk.messaging.store import Send, Verdict

from . import names
from .carrying import around, carrying, context_of, record_of, under
from .instruments import Instruments, Labels
from .operation import Operation, about, labels_of


def place(record: Record | None, handled: Context | None) -> Context | None:
    """Where what is done with a message belongs: its handling, else what is current here (None),
    else what the message carries."""
    if handled is not None or around() is not None:
        return handled
    created = context_of(record)
    return under(created) if created else None


def error_type(result: Verdict | BaseException) -> str | None:
    """The name of the error that the caller will see, if it is one."""
    if isinstance(result, BaseException):
        return type(result).__name__
    if result.refusal is None or _outdated(result):
        return None
    if result.refusal.kind == "unknown":
        return "UnknownAgentError"
    return type(error_of(result.refusal)).__name__


def _outdated(result: Verdict | BaseException) -> bool:
    """Whether a broadcast went by a directory that has changed: it looks, and is sent again."""
    refusal = result.refusal if isinstance(result, Verdict) else None
    return refusal is not None and refusal.kind == "roster"


class Sending:
    """Messages that are being sent; `sends`: as they are to be put."""

    def __init__(self, tracer: Tracer, sends: tuple[Send, ...], handled: Context | None) -> None:
        self._tracer = tracer
        record = record_of(sends[0].body)
        within = place(record, handled)
        if len(sends) == 1:
            self._operation = self._begin(sends, about(record), within, SpanKind.PRODUCER)
            self.sends: tuple[Send, ...] = (carrying(sends[0], self._operation.span),)
        else:
            more: Labels = {names.MESSAGE_COUNT: len(sends)}
            self._operation = self._begin(sends, more, within, SpanKind.CLIENT)
            self.sends = tuple(self._created(send) for send in sends)

    def _begin(
        self,
        sends: tuple[Send, ...],
        more: Labels,
        within: Context | None,
        kind: SpanKind,
    ) -> Operation:
        mailboxes = {send.mailbox for send in sends}
        labels = labels_of(names.SEND, names.SEND, mailboxes.pop() if len(mailboxes) == 1 else None)
        return Operation(self._tracer, labels, more, within=within, kind=kind)

    def _created(self, send: Send) -> Send:
        """A message of several, with a span of its own."""
        labels = labels_of(names.CREATE, names.CREATE, send.mailbox)
        here = under(self._operation.span.get_span_context())
        created = Operation(self._tracer, labels, about(record_of(send.body)), within=here)
        created.end()
        self._operation.span.add_link(created.span.get_span_context())
        return carrying(send, created.span)

    def end(self, result: Verdict | BaseException, instruments: Instruments) -> None:
        """They were sent, or not."""
        error = error_type(result)
        if error is not None:
            self._operation.failed(error)
        elif isinstance(result, Verdict) and len(self.sends) == 1:
            self._known(result)
        if _outdated(result):
            self._operation.span.set_attribute(names.OUTDATED, True)
            self._operation.end(instruments)
            return
        self._operation.end(instruments)
        for send in self.sends:
            labels = labels_of(names.SEND, names.SEND, send.mailbox)
            instruments.sent(labels | ({names.ERROR_TYPE: error} if error else {}))

    def _known(self, verdict: Verdict) -> None:
        """Say so if the message was there before: it goes by the first one's id."""
        for accepted in verdict.accepted:
            if accepted.duplicate:
                self._operation.span.set_attribute(names.DUPLICATE, True)
                self._operation.span.set_attribute(names.MESSAGE_ID, accepted.id)
