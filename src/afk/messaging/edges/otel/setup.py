"""From the application's providers to a watcher for a bus."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from opentelemetry import metrics, trace

from afk.messaging.log import log

from . import names
from .instruments import Instruments
from .watcher import Telemetry


def telemetry(
    tracer_provider: trace.TracerProvider | None, meter_provider: metrics.MeterProvider | None
) -> Telemetry | None:
    """A watcher that tells these providers, or those set up; None if there are none."""
    tracers = tracer_provider or trace.get_tracer_provider()
    meters = meter_provider or metrics.get_meter_provider()
    if _stands_in(tracers) and _stands_in(meters):
        log.info("OpenTelemetry is not set up in this process: the bus tells it nothing")
        return None
    scope, known, schema = names.SCOPE, _version(), names.SCHEMA_URL
    return Telemetry(
        trace.get_tracer(scope, known, tracer_provider, schema),
        Instruments(metrics.get_meter(scope, known, meter_provider, schema)),
    )


def _stands_in(provider: object) -> bool:
    """Whether this is what the API itself has for want of a provider: it keeps nothing."""
    return type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))


def _version() -> str:
    try:
        return version("afk-messaging")
    except PackageNotFoundError:  # run from a folder, not installed
        return ""
