"""The trace context a message carries, by its W3C names: in the record, so in any store."""

from __future__ import annotations

from msgspec.structs import replace
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from afk.messaging.records import Body, Record, decode
from afk.messaging.store import Send

_W3C = TraceContextTextMapPropagator()


def record_of(body: Body) -> Record | None:
    """The record, if it can be read."""
    try:
        return decode(body)
    except ValueError:
        return None


def context_of(record: Record | None) -> SpanContext | None:
    """The context in which the message was created, if it carries one."""
    if record is None or not record.trace:
        return None
    context = _W3C.extract(record.trace, Context())
    return _valid(get_current_span(context).get_span_context())


def around() -> SpanContext | None:
    """The context of the span that is current here, if there is one."""
    return _valid(get_current_span().get_span_context())


def under(parent: SpanContext) -> Context:
    """Where a span is started to be a child of this one; what else is current here stays."""
    return set_span_in_context(NonRecordingSpan(parent))


def carrying(send: Send, span: Span) -> Send:
    """The same message, created in this span."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, set_span_in_context(span, Context()))
    record = record_of(send.body)
    if not carrier or record is None:
        return send
    return replace(send, body=replace(record, trace=carrier))


def _valid(context: SpanContext) -> SpanContext | None:
    return context if context.is_valid else None
