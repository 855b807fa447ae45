"""OpenTelemetry: what the SDK's exporter in memory has seen of a bus, on several stores."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from afk.messaging import (
    AgentMailbox,
    AgentMessage,
    Delivery,
    InMemoryA2ADeliveryStore,
    InMemoryMessageBus,
    InternalA2AEnvelope,
    InternalA2AProtocol,
    MessageBus,
    Reject,
    RetryPolicy,
    SQLiteMessageBus,
    StoreError,
    UnknownAgentError,
    connect,
)
from afk.messaging.edges import otel
from afk.messaging.edges.otel import names
from afk.messaging.messages import Context
from afk.messaging.store import Turn, Verdict
from afk.messaging.watching import Leases

STORES = ["memory", "sqlite", "redis_server"]
QUICK = RetryPolicy(max_attempts=2, base=0.0)
SECRET = "a body that nobody but its agents reads"


class Seen:
    """An application with OpenTelemetry set up, and what it has been told."""

    def __init__(self, sampler: sampling.Sampler = sampling.ALWAYS_ON) -> None:
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        self.tracers = TracerProvider(sampler=sampler)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider(metric_readers=[self._metrics])
        self.tracer = self.tracers.get_tracer("application")

    def watch(self, bus: MessageBus) -> MessageBus:
        return otel.instrument(bus, tracer_provider=self.tracers, meter_provider=self.meters)

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(self._spans.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def below(self, name: str) -> str | None:
        """The name of a span's parent."""
        return self.name_of(self.named(name).parent)

    def linked(self, name: str) -> list[str | None]:
        return [self.name_of(link.context) for link in self.named(name).links]

    def name_of(self, context: trace.SpanContext | None) -> str | None:
        ids = {span.context.span_id: span.name for span in self.spans}
        return None if context is None else ids[context.span_id]

    @property
    def traces(self) -> set[int]:
        return {span.context.trace_id for span in self.spans}

    @property
    def points(self) -> dict[str, list[Any]]:
        """The points of each metric by its name."""
        data = self._metrics.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def count(self, metric: str, **labels: str) -> int:
        """The sum, or the number of measurements, of the points with these labels."""
        wanted = labels.items()
        return sum(
            getattr(point, "count", None) or point.value
            for point in self.points.get(metric, [])
            if wanted <= {key.rpartition(".")[2]: value for key, value in _dict(point)}.items()
        )


def _dict(point: Any) -> Any:
    # operation.name and destination.name end alike
    renamed = {names.OPERATION: "operation", names.DESTINATION: "destination"}
    return [(renamed.get(key, key), value) for key, value in point.attributes.items()]


def labels(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/team.db"
    place = request.getfixturevalue(request.param).url
    return f"{place}?namespace={uuid.uuid4().hex}"


async def serving(
    mailbox: AgentMailbox, handler: Callable[[Delivery], Awaitable[Any]], **how: Any
) -> Callable[[], Awaitable[None]]:
    """Serve meanwhile; call what is returned to end it."""
    task = asyncio.create_task(mailbox.serve(handler, **how))

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    return end


# -- spans -------------------------------------------------------------------------------


async def test_a_workflow_is_one_trace_on_every_store(url: str, seen: Seen) -> None:
    async with seen.watch(connect(url)) as bus:
        ada, bob, cy, dan, eve = [await bus.register(name) for name in "abcde"]

        async def ask(delivery: Delivery) -> str:
            await delivery.send("d", "leaves with the ack")
            await ada.send("e", "leaves at once")
            return (await delivery.request("c", SECRET)).content

        async def answer(delivery: Delivery) -> str:
            return "an answer"

        ends = [await serving(bob, ask), await serving(cy, answer)]
        assert (await ada.request("b", SECRET, timeout=10)).content == "an answer"
        message = await eve.receive(timeout=5)
        await bus.deliver(message.reply("thanks"))
        assert (await ada.receive(timeout=5)).content == "thanks"
        delivery = await dan.claim(timeout=5)
        await delivery.ack()
        await asyncio.gather(*(end() for end in ends))

    assert len(seen.traces) == 1
    roots = [span.name for span in seen.spans if span.parent is None]
    assert roots == ["send b"]
    assert seen.below("process b") == "send b"
    assert seen.below("send c") == "process b"
    assert seen.below("process c") == "send c"
    assert seen.below("send e") == "process b"
    assert seen.below("ack b") == "process b"
    assert seen.below("receive e") == "send e"
    assert seen.below("receive a") == "send a"
    # What b said when it was done, an answer and a letter, left in one step.
    assert seen.below("send") == "process b"
    assert seen.below("create a") == seen.below("create d") == "send"
    assert seen.below("ack d") == "create d"
    assert SECRET not in "".join(span.to_json() for span in seen.spans)


async def test_spans_are_as_the_conventions_say(seen: Seen) -> None:
    async with seen.watch(InMemoryMessageBus()) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")

        async def handle(delivery: Delivery) -> None:
            seen.tracer.start_span("inside").end()

        end = await serving(bob, handle)
        receipt = await ada.send("bob", SECRET, correlation_id="talk")
        await receipt.settled(timeout=5)
        await end()
        await ada.send("ada", "to myself")
        await ada.receive(timeout=5)

    send, process, ack = (seen.named(f"{verb} bob") for verb in ("send", "process", "ack"))
    kinds = {span.name: span.kind for span in seen.spans}
    assert kinds == {
        "send bob": SpanKind.PRODUCER,
        "process bob": SpanKind.CONSUMER,
        "ack bob": SpanKind.CLIENT,
        "inside": SpanKind.INTERNAL,
        "send ada": SpanKind.PRODUCER,
        "receive ada": SpanKind.CLIENT,
    }
    common = {
        "messaging.system": "afk",
        "messaging.destination.name": "bob",
        "messaging.message.id": receipt.id,
        "messaging.message.conversation_id": "talk",
    }
    name, kind = "messaging.operation.name", "messaging.operation.type"
    assert labels(send) == common | {name: "send", kind: "send"}
    attempt = {"messaging.afk.attempt": 1}
    assert labels(process) == common | attempt | {name: "process", kind: "process"}
    assert labels(ack) == common | attempt | {name: "ack", kind: "settle"}
    assert seen.below("inside") == "process bob"
    assert seen.linked("process bob") == seen.linked("ack bob") == ["send bob"]
    assert seen.linked("receive ada") == ["send ada"]
    scope = send.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.schema_url) == ("afk.messaging", names.SCHEMA_URL)
    assert all(span.end_time >= span.start_time for span in seen.spans)  # type: ignore[operator]


async def test_copies_are_created_and_sent_in_one_step(seen: Seen) -> None:
    async with seen.watch(InMemoryMessageBus()) as bus:
        ada, bob, cy = [await bus.register(name) for name in ("ada", "bob", "cy")]
        await ada.broadcast("hello")
        await bob.receive(timeout=1)
        await cy.receive(timeout=1)
    send = seen.named("send")
    assert send.kind is SpanKind.CLIENT
    assert labels(send)["messaging.batch.message_count"] == 2
    assert "messaging.destination.name" not in labels(send)
    assert sorted(map(str, seen.linked("send"))) == ["create bob", "create cy"]
    assert seen.below("create bob") == "send"
    assert seen.below("receive cy") == "create cy"
    assert len(seen.traces) == 1


async def test_a_broadcast_to_a_directory_that_has_changed_is_no_error(seen: Seen) -> None:
    """It is sent again to those who are there, and counted once."""
    name = f"memory://{uuid.uuid4().hex}"
    async with connect(name) as other, seen.watch(connect(name)) as bus:
        ada, _, _ = [await bus.register(name) for name in ("ada", "bob", "cy")]
        await ada.broadcast("to two")
        await other.register("dan")
        await ada.broadcast("to three")
    sends = [span for span in seen.spans if span.name == "send"]
    outdated = [labels(span).get("messaging.afk.outdated", False) for span in sends]
    assert outdated == [False, True, False]
    assert {span.status.status_code for span in seen.spans} == {StatusCode.UNSET}
    assert seen.count(names.SENT_MESSAGES) == 2 + 3


async def test_what_a_span_is_current_for_is_below_it(seen: Seen) -> None:
    async with seen.watch(InMemoryMessageBus()) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        with seen.tracer.start_as_current_span("mine"):
            await ada.send("bob", 1)
        with seen.tracer.start_as_current_span("another"):
            delivery = await bob.claim(timeout=1)
            async with delivery:
                assert trace.get_current_span().name == "process bob"  # type: ignore[attr-defined]
            assert trace.get_current_span().name == "another"  # type: ignore[attr-defined]
    assert seen.below("send bob") == "mine"
    assert seen.below("receive bob") == "another"
    assert seen.below("process bob") == "send bob"
    assert seen.linked("process bob") == ["send bob", "another"]
    assert seen.below("ack bob") == "process bob"


async def test_envelopes_and_transactions_are_seen_too(seen: Seen, tmp_path: Path) -> None:
    async with seen.watch(SQLiteMessageBus(tmp_path / "team.db")) as bus:
        protocol = InternalA2AProtocol(bus)
        ada, bob = await protocol.register("ada"), await protocol.register("bob")

        async def handle(delivery: Delivery) -> dict[str, Any]:
            async with delivery.transaction() as connection:
                connection.execute("CREATE TABLE done (id)")
                await delivery.send("ada", {"note": 1})
            return {"answer": 7}

        end = await serving(bob, handle)
        envelope = InternalA2AEnvelope(
            message_type="request",
            run_id="r",
            thread_id="t",
            conversation_id="c",
            correlation_id="x",
            idempotency_key="k",
            source_agent="ada",
            target_agent="bob",
        )
        answer = await protocol.request(envelope, timeout=5)
        assert answer.payload == {"answer": 7}
        await ada.receive(timeout=5)
        await end()
    assert len(seen.traces) == 1
    assert seen.below("ack bob") == "process bob"
    assert [span.name for span in seen.spans].count("send ada") == 2


# -- what fails --------------------------------------------------------------------------


async def test_a_failed_attempt_is_an_error(seen: Seen) -> None:
    async def fail(delivery: Delivery) -> None:
        if delivery.message.content == "reject":
            raise Reject("never")
        raise ValueError("no")

    async with seen.watch(InMemoryMessageBus(retry=QUICK)) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        end = await serving(bob, fail)
        await (await ada.send("bob", "fail")).settled(timeout=5)
        await (await ada.send("bob", "reject")).settled(timeout=5)
        await end()
    processed = [span for span in seen.spans if span.name == "process bob"]
    assert [labels(span)["error.type"] for span in processed] == [
        "ValueError",
        "ValueError",
        "Reject",
    ]
    assert [labels(span)["messaging.afk.attempt"] for span in processed] == [1, 2, 1]
    assert not any(span.status.is_ok for span in processed)
    assert [len(span.events) for span in processed] == [1, 1, 0]  # the exceptions
    settled = [span for span in seen.spans if labels(span)[names.OPERATION_TYPE] == "settle"]
    assert [span.name for span in settled] == ["nack bob", "nack bob", "reject bob"]
    reasons = [labels(span).get("messaging.afk.dead_reason") for span in settled]
    assert reasons == [None, "exhausted", "rejected"]
    assert all(span.status.is_ok or span.status.is_unset for span in settled)
    assert seen.count("messaging.afk.client.dead.messages") == 2
    assert seen.count("messaging.process.duration", type="ValueError") == 2


async def test_a_late_handler_and_one_that_is_stopped_are_told_apart(seen: Seen) -> None:
    started = asyncio.Event()

    async def wait(delivery: Delivery) -> None:
        started.set()
        await asyncio.sleep(60)

    async with seen.watch(InMemoryMessageBus(retry=RetryPolicy(max_attempts=1))) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        end = await serving(bob, wait, timeout=0.05)
        await (await ada.send("bob", 1)).settled(timeout=5)
        await end()
        end = await serving(bob, wait, grace=0.0)
        started.clear()
        await ada.send("bob", 2)
        await started.wait()
        await end()
    processed = [span for span in seen.spans if span.name == "process bob"]
    errors = [labels(span)["error.type"] for span in processed]
    assert errors == ["TimeoutError", "CancelledError"]
    assert [span.name for span in seen.spans][-1] == "give_back bob"


async def test_a_refused_send_and_a_repeated_one(seen: Seen) -> None:
    async with seen.watch(InMemoryMessageBus()) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        with pytest.raises(UnknownAgentError):
            await ada.send("bo", 1)
        first = await ada.send("bob", 1, idempotency_key="k")
        await ada.send("bob", 1, idempotency_key="k")
        assert await bob.message_count() == 1
    refused = seen.named("send bo")
    assert labels(refused)["error.type"] == "UnknownAgentError"
    assert not refused.status.is_ok
    one, again = [labels(span) for span in seen.spans if span.name == "send bob"]
    assert one["messaging.message.id"] == again["messaging.message.id"] == first.id
    assert again["messaging.afk.duplicate"] is True
    assert "messaging.afk.duplicate" not in one


class Failing(InMemoryA2ADeliveryStore):
    """Takes what is put, and fails to say so."""

    async def put(self, turns: tuple[Turn, ...]) -> tuple[Verdict, ...]:
        await super().put(turns)
        raise StoreError("the answer was lost")


async def test_a_store_that_fails_is_an_error(seen: Seen) -> None:
    async with seen.watch(MessageBus(Failing())) as bus:
        ada = await bus.register("ada")
        with pytest.raises(StoreError):
            await ada.send("ada", 1)
        delivery = await ada.claim(timeout=1)
        with pytest.raises(StoreError):
            await delivery.ack()
        with pytest.raises(UnknownAgentError):
            await bus.mailbox("bob").claim(timeout=0)
    errors = {span.name: labels(span).get("error.type") for span in seen.spans}
    assert errors == {
        "send ada": "StoreError",
        "receive ada": None,
        "ack ada": "StoreError",
        "receive bob": "UnknownAgentError",
    }
    assert seen.below("receive ada") == "send ada"  # it was kept, with its context


async def test_a_lease_of_somebody_else_and_many_leases(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Leases, "MOST", 2)
    store = InMemoryMessageBus()
    async with seen.watch(store) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for number in range(4):
            await ada.send("bob", number)
        claimed = [await bob.claim(timeout=1) for _ in range(4)]
        for delivery in claimed:
            await (await bob.resume(delivery.token)).ack()
    settled = [span for span in seen.spans if labels(span)[names.OPERATION_TYPE] == "settle"]
    assert [span.name for span in settled] == ["ack", "ack", "ack bob", "ack bob"]
    assert all(labels(span)["messaging.message.id"] for span in settled)


# -- the context -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "carried", [{"traceparent": "rubbish"}, {"tracestate": "\x1b"}, {"other": "x" * 10_000}, {}]
)
async def test_a_context_that_is_none_is_passed_over(carried: dict[str, str], seen: Seen) -> None:
    async with InMemoryMessageBus() as bus:
        await bus.register("ada")
        bob = await bus.register("bob")
        await bus.deliver(AgentMessage("ada", "bob", 1, _context=Context(trace=carried)))
        seen.watch(bus)
        async with await bob.claim(timeout=1):
            pass
    assert seen.named("process bob").parent is None


async def test_a_bus_that_is_not_watched_passes_the_context_on(seen: Seen) -> None:
    place = f"memory://{uuid.uuid4().hex}"
    async with seen.watch(connect(place)) as bus, connect(place) as silent:
        ada, cy = await bus.register("ada"), await bus.register("cy")
        bob = await silent.register("bob")

        async def forward(delivery: Delivery) -> None:
            await delivery.send("cy", 1)

        end = await serving(bob, forward)
        await ada.send("bob", 1)
        await cy.receive(timeout=5)
        await end()
    assert [span.name for span in seen.spans] == ["send bob", "receive cy"]
    assert len(seen.traces) == 1


async def test_what_is_not_sampled_is_carried_on_all_the_same() -> None:
    seen = Seen(sampling.ALWAYS_OFF)
    async with seen.watch(InMemoryMessageBus()) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", 1)
        async with await bob.claim(timeout=1) as delivery:
            carried = delivery.record.trace
    assert carried is not None
    assert int(carried["traceparent"][-2:], 16) & 1 == 0
    assert seen.spans == []


WORKER = """
import asyncio, json, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from afk.messaging import connect
from afk.messaging.edges import otel

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

async def main():
    async with otel.instrument(connect(sys.argv[1])) as bus:
        worker = await bus.register("worker")
        async def handle(delivery):
            return "done"
        serving = asyncio.create_task(worker.serve(handle))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    for span in exporter.get_finished_spans():
        context, parent = span.context, span.parent
        print(json.dumps([span.name, f"{context.trace_id:x}", parent and f"{parent.span_id:x}"]))

asyncio.run(main())
"""


@pytest.mark.parametrize("url", STORES[1:], indirect=True)
async def test_two_processes_are_one_trace(url: str, seen: Seen) -> None:
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, url, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert worker.stdout is not None
    assert await worker.stdout.readline() == b"ready\n"
    async with seen.watch(connect(url)) as bus:
        boss = await bus.register("boss")
        assert (await boss.request("worker", "a task", timeout=10)).content == "done"
    out, _ = await worker.communicate(b"")
    there = {name: (trace, parent) for name, trace, parent in map(json.loads, out.splitlines())}
    send = seen.named("send worker").context
    assert set(there) == {"process worker", "send boss", "ack worker"}
    assert {trace for trace, _ in there.values()} == {f"{send.trace_id:x}"}
    assert there["process worker"][1] == f"{send.span_id:x}"


# -- metrics -----------------------------------------------------------------------------


async def test_metrics_are_as_the_conventions_say(url: str, seen: Seen) -> None:
    async with seen.watch(connect(url)) as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        end = await serving(bob, _echo)
        for _ in range(3):
            await ada.request("bob", SECRET, timeout=10)
        await end()
        with pytest.raises(UnknownAgentError):
            await ada.send("bo", 1)
        await bob.send("ada", 1)
        await ada.receive(timeout=5)
        assert await ada.receive(timeout=0) is None
    assert seen.count("messaging.client.sent.messages", destination="bob") == 3
    assert seen.count("messaging.client.sent.messages", destination="ada") == 4
    assert seen.count("messaging.client.sent.messages", type="UnknownAgentError") == 1
    assert seen.count("messaging.client.consumed.messages", destination="bob") == 3
    assert seen.count("messaging.client.consumed.messages", destination="ada") == 1
    assert seen.count("messaging.process.duration", destination="bob") == 3
    took = "messaging.client.operation.duration"
    assert seen.count(took, operation="send", destination="bob") == 3
    assert seen.count(took, operation="ack", destination="bob") == 3
    assert seen.count(took, operation="receive", destination="ada") == 1
    keys = {key for points in seen.points.values() for point in points for key in point.attributes}
    assert keys == {
        names.SYSTEM,
        names.OPERATION,
        names.OPERATION_TYPE,
        names.DESTINATION,
        names.ERROR_TYPE,
    }
    buckets = seen.points[took][0].explicit_bounds
    assert tuple(buckets) == names.SECONDS


async def _echo(delivery: Delivery) -> Any:
    return delivery.message.content


# -- switched off ------------------------------------------------------------------------


def in_a_process(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_without_providers_nothing_is_wrapped() -> None:
    """In a process of its own: the providers of one are for all that runs in it."""
    said = in_a_process(
        "import logging, sys\n"
        "logging.basicConfig(level=20, stream=sys.stdout, format='%(message)s')\n"
        "from afk.messaging import InMemoryMessageBus\n"
        "from afk.messaging.edges import otel\n"
        "bus = InMemoryMessageBus(); store = bus._core.store\n"
        "print(otel.instrument(bus) is bus, bus._core.store is store, bus._core.watchers)"
    )
    assert said == (
        "OpenTelemetry is not set up in this process: the bus tells it nothing\nTrue True ()\n"
    )


def test_nothing_imports_opentelemetry_but_instrument() -> None:
    assert (
        in_a_process(
            "import asyncio, sys; from afk.messaging import InMemoryMessageBus;"
            "import afk.messaging.edges.otel, afk.messaging.edges.logs\n"
            "async def main():\n"
            "  async with InMemoryMessageBus() as bus:\n"
            "    ada = await bus.register('ada'); await ada.send('ada', 1); await ada.receive()\n"
            "asyncio.run(main()); print('opentelemetry' in sys.modules)"
        )
        == "False\n"
    )


def test_without_the_extra_it_says_what_to_install() -> None:
    said = in_a_process(
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from afk.messaging import ConfigurationError, InMemoryMessageBus\n"
        "from afk.messaging.edges import otel\n"
        "try: otel.instrument(InMemoryMessageBus())\n"
        "except ConfigurationError as error: print(error)"
    )
    assert said == ("otel needs the package opentelemetry: pip install 'afk-messaging[otel]'\n")
