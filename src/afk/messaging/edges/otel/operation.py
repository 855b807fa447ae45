"""One operation of the bus, from its start to its end: a span, and its share of the metrics."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, Tracer

from afk.messaging.records import Record

from . import names
from .instruments import Instruments, Labels

_KINDS = {
    names.CREATE: SpanKind.PRODUCER,
    names.RECEIVE: SpanKind.CLIENT,
    names.PROCESS: SpanKind.CONSUMER,
    names.SETTLE: SpanKind.CLIENT,
}


def labels_of(kind: str, name: str, destination: str | None) -> Labels:
    """What the metrics tell apart, and every span says too. kind: the operation's type."""
    labels: Labels = {
        names.SYSTEM: names.OUR_SYSTEM,
        names.OPERATION: name,
        names.OPERATION_TYPE: kind,
    }
    if destination:
        labels[names.DESTINATION] = destination
    return labels


def about(
    record: Record | None, message_id: str | None = None, attempt: int | None = None
) -> Labels:
    """What a span says of the one message it is about."""
    found = {
        names.MESSAGE_ID: message_id or (record.id if record else None),
        names.CONVERSATION_ID: record.correlation_id if record else None,
        names.ATTEMPT: attempt,
    }
    return {name: value for name, value in found.items() if value is not None}


class Operation:
    """An operation that has begun; `started`: seconds ago it did."""

    def __init__(
        self,
        tracer: Tracer,
        labels: Labels,
        more: Mapping[str, str | int],
        *,
        within: Context | None = None,
        links: Iterable[SpanContext | None] = (),
        kind: SpanKind | None = None,
        started: float = 0.0,
    ) -> None:
        self.labels = labels
        self._started = time.perf_counter() - started
        name, destination = labels[names.OPERATION], labels.get(names.DESTINATION)
        self.span = tracer.start_span(
            f"{name} {destination}" if destination else str(name),
            within,
            kind or _KINDS[str(labels[names.OPERATION_TYPE])],
            {**labels, **more},
            [Link(link) for link in links if link is not None],
            time.time_ns() - int(started * 1e9),
        )

    def failed(self, error: str, description: str | None = None) -> None:
        """It will end with an error of this type."""
        self.labels = {**self.labels, names.ERROR_TYPE: error}
        self.span.set_attribute(names.ERROR_TYPE, error)
        self.span.set_status(Status(StatusCode.ERROR, description))

    def end(self, instruments: Instruments | None = None) -> None:
        """It has ended; instruments: what measures it."""
        self.span.end()
        if instruments is not None:
            instruments.took(time.perf_counter() - self._started, self.labels)
