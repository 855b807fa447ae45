"""The code of the two documents this library was asked for, as it stands in them.

Of the Redis snippet only the port is another one.
"""

from __future__ import annotations

import asyncio
import typing

import pytest

from afk.messaging import AgentMessage, InternalA2AEnvelope, InternalA2AProtocol, connect
from afk.messaging.testing.servers import Server


async def test_quick_start(capsys: pytest.CaptureFixture[str]) -> None:
    from afk.messaging import InMemoryMessageBus

    bus = InMemoryMessageBus()

    # Register agents
    mailbox_a = await bus.register("researcher")
    mailbox_b = await bus.register("writer")

    # Send a message
    await mailbox_a.send("writer", "Please draft a summary of quantum computing")

    # Receive the message
    msg = await mailbox_b.receive()
    print(msg.sender)  # "researcher"
    print(msg.content)  # "Please draft a summary of quantum computing"

    # Reply
    reply = msg.reply("Here's the draft: ...")
    await bus.deliver(reply)

    said = capsys.readouterr().out.splitlines()
    assert said == ["researcher", "Please draft a summary of quantum computing"]
    answer = await mailbox_a.receive(timeout=1)
    assert answer is not None
    assert (answer.sender, answer.content) == ("writer", "Here's the draft: ...")
    assert answer.correlation_id == msg.id
    await bus.aclose()


async def test_broadcasting() -> None:
    from afk.messaging import InMemoryMessageBus

    bus = InMemoryMessageBus()
    mailbox_a = await bus.register("researcher")
    others = [await bus.register(name) for name in ("writer", "editor")]

    await mailbox_a.broadcast("System maintenance in 5 minutes")

    for other in others:
        copy = await other.receive(timeout=1)
        assert copy is not None
        assert (copy.sender, copy.recipient) == ("researcher", "*")
        assert copy.content == "System maintenance in 5 minutes"
    assert await mailbox_a.message_count() == 0
    assert await mailbox_a.peek() == []
    await bus.aclose()


async def test_redis(redis_server: Server) -> None:
    import redis

    from afk.messaging import RedisMessageBus

    other = connect(redis_server.url)  # as another process would
    mailbox_2 = await other.register("agent_2")

    r = redis.Redis(host="localhost", port=redis_server.port)
    bus = RedisMessageBus(r)

    mailbox = await bus.register("agent_1")
    await mailbox.send("agent_2", {"task": "analyze", "data": [1, 2, 3]})

    message = await mailbox_2.receive(timeout=5)
    assert message is not None
    assert message.content == {"task": "analyze", "data": [1, 2, 3]}
    assert {b"agent_1", b"agent_2"} <= set(r.smembers("afk:{afk}:agents"))
    await bus.aclose(), await other.aclose()
    r.close()


def test_message_fields() -> None:
    message = AgentMessage("researcher", "writer", {"any": ["json"]})
    assert isinstance(message.id, str)
    assert (message.sender, message.recipient) == ("researcher", "writer")
    assert message.content == {"any": ["json"]}
    assert message.correlation_id is None
    assert message.priority == "normal"
    assert isinstance(message.timestamp, float)
    assert message.metadata == {}


def test_envelope() -> None:
    from afk.messaging import InternalA2AEnvelope

    envelope = InternalA2AEnvelope(
        message_type="request",
        run_id="run-42",
        thread_id="thread-42",
        conversation_id="conversation-42",
        correlation_id="task-42",
        payload={"findings": ["fact 1", "fact 2"]},
        idempotency_key="task-42-research",
        source_agent="researcher",
        target_agent="writer",
    )

    assert envelope.payload == {"findings": ["fact 1", "fact 2"]}
    assert envelope.metadata == {}
    assert isinstance(envelope.timestamp_ms, int)


async def test_idempotency_and_correlation() -> None:
    protocol = InternalA2AProtocol()
    mailboxes = {
        name: await protocol.register(name) for name in ("coordinator", "researcher", "writer")
    }
    send = protocol.send
    run_id, thread_id, conversation_id = "run-42", "thread-42", "conversation-42"

    # All messages in this workflow share the same correlation_id
    correlation = f"analysis-{run_id}"

    async def workflow() -> None:
        await send(InternalA2AEnvelope(
            message_type="request",
            run_id=run_id,
            thread_id=thread_id,
            conversation_id=conversation_id,
            correlation_id=correlation,
            source_agent="coordinator",
            target_agent="researcher",
            payload={"query": "AI trends"},
            idempotency_key=f"{correlation}-research",
        ))  # fmt: skip

        await send(InternalA2AEnvelope(
            message_type="request",
            run_id=run_id,
            thread_id=thread_id,
            conversation_id=conversation_id,
            correlation_id=correlation,
            source_agent="coordinator",
            target_agent="writer",
            payload={"topic": "AI trends"},
            idempotency_key=f"{correlation}-write",
        ))  # fmt: skip

    await workflow()
    await workflow()  # the same keys are the same messages

    assert len(await protocol.bus.trace(correlation)) == 2
    for name, payload in (
        ("researcher", {"query": "AI trends"}),
        ("writer", {"topic": "AI trends"}),
    ):
        assert await mailboxes[name].message_count() == 1
        envelope = await mailboxes[name].receive(timeout=1)
        assert envelope is not None
        assert (envelope.payload, envelope.message_type) == (payload, "request")
        assert (envelope.run_id, envelope.thread_id) == (run_id, thread_id)
    await protocol.bus.aclose()


async def test_delivery_behavior() -> None:
    """Submitted, checked for its key, delivered, processed, acked, marked as delivered."""
    protocol = InternalA2AProtocol()
    await protocol.register("coordinator")
    researcher = await protocol.register("researcher")
    worked = []

    async def handler(delivery: typing.Any) -> None:
        worked.append(delivery.message.payload)

    def envelope() -> InternalA2AEnvelope:
        return InternalA2AEnvelope(
            message_type="event",
            run_id="run-42",
            thread_id="thread-42",
            conversation_id="conversation-42",
            correlation_id="task-42",
            payload={"query": "AI trends"},
            idempotency_key="task-42-research",
            source_agent="coordinator",
            target_agent="researcher",
        )

    serving = asyncio.create_task(researcher.serve(handler))
    receipt = await protocol.send(envelope())
    assert await receipt.settled(timeout=5) == "done"
    again = await protocol.send(envelope())
    assert (again.duplicate, again.id) == (True, receipt.id)
    assert worked == [{"query": "AI trends"}]
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await protocol.bus.aclose()


async def test_delivery_store_backends() -> None:
    from afk.messaging import InMemoryA2ADeliveryStore

    store = InMemoryA2ADeliveryStore()

    protocol = InternalA2AProtocol(store)
    mailbox = await protocol.register("writer")
    assert await mailbox.message_count() == 0
    await protocol.bus.aclose()
