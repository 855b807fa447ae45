"""OpenTelemetry: spans, metrics and a trace context in each message. Needs the `[otel]` extra."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from afk.messaging import MessageBus
from afk.messaging.bus import needs_extra

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

B = TypeVar("B", bound=MessageBus)


def instrument(
    bus: B,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> B:
    """Have this bus tell OpenTelemetry what it does, and return it. Before mailboxes are served.

    The providers are by default those the application has set up; without any, nothing is done
    and nothing it costs. ConfigurationError if the `[otel]` extra is not installed.
    """
    with needs_extra("otel"):
        from .setup import telemetry

    watcher = telemetry(tracer_provider, meter_provider)
    if watcher is not None:
        bus.watch(watcher)
    return bus
