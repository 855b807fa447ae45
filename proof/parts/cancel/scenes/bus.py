"""The scenes of a bus: its life, its agents, looking and mending."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from afk.messaging import InternalA2AProtocol, UnknownAgentError

from ..stage import LEASE, Call, Stage
from .registry import look, scene

look("Inspector.stats", lambda stage, _: stage.bus.stats())
look("Inspector.get", lambda stage, name: stage.bus.get(name))
look("Inspector.status", lambda stage, name: stage.bus.status(name))
look("Inspector.messages", lambda stage, _: stage.bus.messages(agent="bob", limit=5))
look("Inspector.trace", lambda stage, name: stage.bus.trace(name))
look("Inspector.dead_letters", lambda stage, _: stage.bus.dead_letters("bob"))
look("MessageBus.agents", lambda stage, _: stage.bus.agents())


@scene("MessageBus.__aenter__")
async def _enter(stage: Stage) -> Call:
    return stage.other().__aenter__


@scene("MessageBus.aclose")
async def _close(stage: Stage) -> Call:
    """What was received is acked, however often the closing is cancelled."""
    bus = stage.other()
    await stage.mail()
    await stage.received(partial(bus.mailbox("bob").receive, LEASE / 2))
    return bus.aclose


@scene("MessageBus.__aexit__")
async def _exit(stage: Stage) -> Call:
    bus = await stage.other().__aenter__()
    await stage.mail()
    await stage.received(partial(bus.mailbox("bob").receive, LEASE / 2))
    return lambda: bus.__aexit__(None, None, None)


@scene("MessageBus.register")
async def _register(stage: Stage) -> Call:
    name = f"new-{stage.number()}"
    return lambda: stage.bus.register(name)


@scene("InternalA2AProtocol.register")
async def _register_for_envelopes(stage: Stage) -> Call:
    name = f"new-{stage.number()}"
    return lambda: InternalA2AProtocol(stage.bus).register(name)


@scene("MessageBus.unregister")
async def _unregister(stage: Stage) -> Call:
    name = f"old-{stage.number()}"
    await stage.bus.register(name)
    await stage.mail(name)

    async def unregister() -> None:
        with suppress(UnknownAgentError):
            await stage.bus.unregister(name)

    return unregister


@scene("Inspector.cancel")
async def _cancel(stage: Stage) -> Call:
    receipt = await stage.mail()

    async def cancel() -> None:
        if await stage.bus.cancel(receipt.id):
            stage.history.note("cancel", id=receipt.id)

    return cancel


@scene("Inspector.redrive")
async def _redrive(stage: Stage) -> Call:
    letter = await stage.dead()
    stage.history.note("redrive", id=letter)
    return lambda: stage.bus.redrive(letter)


@scene("Inspector.discard")
async def _discard(stage: Stage) -> Call:
    """Without content, since the body is let go."""
    letter = await stage.dead(content=None)
    return lambda: stage.bus.discard(letter)
