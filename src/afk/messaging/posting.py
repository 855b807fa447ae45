"""Sending as one step of its own: a letter, a request, a broadcast."""

from __future__ import annotations

import hashlib
from typing import Any

from msgspec.structs import replace

from .core import Core
from .delivery import current
from .errors import InvalidMessageError
from .lifecycle import copy_id
from .listening import deadline_of
from .messages import BROADCAST
from .overdue import Deadline
from .receipts import Receipt, request
from .records import Record
from .sending import Options, Sent, following, to_send
from .store import Turn
from .views import M, View


def _here(record: Record) -> Record:
    """What is sent inside a handler follows from the message being handled."""
    delivery = current.get()
    return record if delivery is None else following(record, delivery.record)


async def post(
    core: Core,
    view: View[M],
    record: Record,
    *,
    ttl: float | None = None,
    delay: float = 0.0,
    connection: Any = None,
) -> Receipt[M]:
    """Store one message; its receipt. connection: with an open transaction, to be part of."""
    turn, sent = _one(core, view, record, ttl, delay)
    if connection is None:
        verdict = await core.put(turn, sent)
    else:
        verdict = await core.put_within(connection, turn, sent)
    return Receipt(core, view, sent.record, verdict.accepted[0])


def _one(
    core: Core,
    view: View[Any],
    record: Record,
    ttl: float | None,
    delay: float,
    deadline: Deadline | None = None,
) -> tuple[Turn, Sent]:
    """The turn that sends to one agent."""
    if record.recipient == BROADCAST:
        raise InvalidMessageError("recipient: '*' is for broadcast(); deliver() takes one agent")
    record = _here(record)
    order = to_send(record, core.settings, ttl=ttl, delay=delay)
    return Turn(sends=(order,)), Sent(record, view, deadline)


async def ask(core: Core, view: View[M], record: Record, timeout: float, options: Options) -> M:
    """Store a request and wait for its answer; its ttl is the timeout unless given."""
    record = replace(record, kind="request", awaited=True)
    ttl = timeout if options.ttl is None else options.ttl
    turn, sent = _one(core, view, record, ttl, options.delay, deadline_of(timeout))
    return await request(core, view, turn, sent, timeout)


async def post_copies(
    core: Core, view: View[M], record: Record, *, ttl: float | None = None, delay: float = 0.0
) -> list[Receipt[M]]:
    """A copy for every registered agent but the sender, in one step; a receipt for each."""
    record = _here(record)
    chain = record.correlation_id or _chain(record)
    roster, fresh = core.roster, False  # as it was last seen: the store refuses it if it changed
    while True:
        if roster is None:
            roster, fresh = await core.agents(), True
        copies = {
            name: replace(record, id=copy_id(record.id, name), correlation_id=chain)
            for name in roster.boxes
            if name != record.sender
        }
        if fresh and not copies:
            return []
        sends = tuple(
            to_send(copy, core.settings, mailbox=name, ttl=ttl, delay=delay, alone=True)
            for name, copy in copies.items()
        )
        turn = Turn(sends=sends, roster=roster.version)
        verdict = await core.try_put(turn, Sent(record, view))
        if verdict.refusal is None or verdict.refusal.kind != "roster":
            break
        roster = None  # someone joined or left meanwhile: look again
    await core.insist(verdict)
    return [
        Receipt(core, view, copy, accepted)
        for copy, accepted in zip(copies.values(), verdict.accepted, strict=True)
    ]


def _chain(record: Record) -> str:
    """What the copies of a broadcast share; under a key of its own the same for each repeat, which
    would be another message otherwise."""
    if record.key is None:
        return record.id
    return hashlib.blake2b(f"{record.sender}\0{record.key}".encode(), digest_size=16).hexdigest()
