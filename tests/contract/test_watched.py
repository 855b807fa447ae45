"""A bus that is watched keeps the contract like any other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from afk.messaging import MessageBus
from afk.messaging.edges import logs, otel

from .contract import contract_of
from .subjects import Memory, SQLite


class WatchedMemory(Memory):
    title = "memory, watched"

    def bus(self, clock: Callable[[], float] | None = None, **options: Any) -> MessageBus:
        return _watched(super().bus(clock, **options))


class WatchedSQLite(SQLite):
    title = "SQLite, watched"

    def bus(self, clock: Callable[[], float] | None = None, **options: Any) -> MessageBus:
        return _watched(super().bus(clock, **options))


def _watched(bus: MessageBus) -> MessageBus:
    tracers, meters = TracerProvider(), MeterProvider()
    otel.instrument(bus, tracer_provider=tracers, meter_provider=meters)
    return logs.instrument(bus, level=logging.DEBUG, bodies=True)


test_contract = contract_of(WatchedMemory)
test_contract_in_a_file = contract_of(WatchedSQLite, "turns", "leases")  # what memory has not
