"""The metrics, by the messaging conventions and a count of dead letters."""

from __future__ import annotations

from opentelemetry.metrics import Meter

from . import names

Labels = dict[str, str | int]


class Instruments:
    """What is measured."""

    def __init__(self, meter: Meter) -> None:
        self._operation = meter.create_histogram(
            names.OPERATION_DURATION,
            unit="s",
            description="Duration of an operation on the store.",
            explicit_bucket_boundaries_advisory=names.SECONDS,
        )
        self._process = meter.create_histogram(
            names.PROCESS_DURATION,
            unit="s",
            description="Duration of handling a message.",
            explicit_bucket_boundaries_advisory=names.SECONDS,
        )
        self._sent = meter.create_counter(
            names.SENT_MESSAGES, unit="{message}", description="Messages that were to be sent."
        )
        self._consumed = meter.create_counter(
            names.CONSUMED_MESSAGES, unit="{message}", description="Messages handed over."
        )
        self._dead = meter.create_counter(
            names.DEAD_MESSAGES,
            unit="{message}",
            description="Messages of any mailbox that became dead letters in a call of this bus.",
        )

    def took(self, seconds: float, labels: Labels) -> None:
        """An operation has ended."""
        handled = labels[names.OPERATION_TYPE] == names.PROCESS
        (self._process if handled else self._operation).record(seconds, labels)

    def sent(self, labels: Labels) -> None:
        """A message was sent, or was to be."""
        self._sent.add(1, labels)

    def consumed(self, count: int, labels: Labels) -> None:
        """Messages were claimed."""
        self._consumed.add(count, labels)

    def died(self, count: int) -> None:
        """Messages became dead letters."""
        if count:
            self._dead.add(count, {names.SYSTEM: names.OUR_SYSTEM})
