"""What stands in the log: groups of operations, in msgpack.

A group is what one process asked at one time. It is one message, or several where the server's
limit asks for it, and takes effect with its last one. Every process reads the same log, so what
an operation does may depend on nothing but the log before it: a change of the rules, or of this
format, needs another VERSION.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ...errors import ConfigurationError
from ...lifecycle import Again, Dead, Done, Outcome
from ...records import wire
from ...store import Box, Claim, Send, Turn

VERSION: Literal[1] = 1
ENVELOPE = 128
"""Bytes a message needs around its operations, at most."""


class Put(Struct, frozen=True, array_like=True, tag="p", gc=False):
    """`A2ADeliveryStore.put`, of one turn."""

    turn: Turn


class Take(Struct, frozen=True, array_like=True, tag="c", gc=False):
    """`A2ADeliveryStore.claim`."""

    claim: Claim


class Bind(Struct, frozen=True, array_like=True, tag="b"):
    """`A2ADeliveryStore.bind`."""

    box: Box


class Unbind(Struct, frozen=True, array_like=True, tag="u"):
    """`A2ADeliveryStore.unbind`."""

    name: str


class Amend(Struct, frozen=True, array_like=True, tag="a"):
    """`A2ADeliveryStore.amend`."""

    verb: Literal["cancel", "redrive", "discard"]
    ids: tuple[str, ...]
    agent: str | None


class Based(Struct, frozen=True, array_like=True, tag="i"):
    """There is an image, of `length` bytes, of when `size` bytes of the log had been read."""

    size: int
    length: int


Op = Put | Take | Bind | Unbind | Amend | Based


class Part(Struct, frozen=True, array_like=True, gc=False):
    """One message of the log: a part of the number-th group of a writer.

    now: the time, if the writer has a clock of its own; else it is when the server stored the
    group's last part.
    """

    version: Literal[1]
    writer: str
    number: int
    index: int
    count: int
    now: float | None
    ops: bytes


_encode = msgspec.msgpack.Encoder().encode
_parts = msgspec.msgpack.Decoder(Part)
_anything = msgspec.msgpack.Decoder()
_ops = msgspec.msgpack.Decoder(tuple[Op, ...])


def packed(ops: tuple[Op, ...]) -> bytes:
    """The bytes of these operations."""
    return _encode(ops)


def unpacked(data: bytes) -> tuple[Op, ...]:
    """The operations of these bytes."""
    return _ops.decode(data)


def parts(writer: str, number: int, now: float | None, ops: bytes, most: int) -> list[bytes]:
    """The messages of a group, each of at most so many bytes."""
    room = most - ENVELOPE
    slices = [ops[start : start + room] for start in range(0, len(ops), room)]
    return [
        _encode(Part(VERSION, writer, number, index, len(slices), now, each))
        for index, each in enumerate(slices)
    ]


def part(message: bytes) -> Part | None:
    """A message of the log; None for what is none of ours, ConfigurationError for another
    version's."""
    try:
        found = _parts.decode(message)
        return found if 0 <= found.index < found.count and found.number > 0 else None
    except ValueError:
        try:
            version, *_ = _anything.decode(message)
        except (ValueError, TypeError):
            return None
        if isinstance(version, int) and version != VERSION:
            raise ConfigurationError(
                f"the log is in version {version}, and this process speaks {VERSION}: all that"
                " use a namespace need the same version of afk-messaging"
            ) from None
        return None


def is_ack(turn: Turn) -> bool:
    """Whether it is an ack and no more: as it is, it can be written."""
    return type(turn.outcome) is Done and not turn.sends


def as_data(turn: Turn) -> Turn:
    """The turn with its bodies in wire form, and texts that can be encoded."""
    outcome = _said(turn)
    if not turn.sends and outcome is turn.outcome:
        return turn
    return replace(turn, sends=tuple([_plain(send) for send in turn.sends]), outcome=outcome)


def _plain(send: Send) -> Send:
    if send.dead is None:
        return replace(send, body=wire(send.body))
    return replace(send, body=wire(send.body), dead=(send.dead[0], _text(send.dead[1])))


def _said(turn: Turn) -> Outcome | None:
    outcome = turn.outcome
    if (type(outcome) is Again or type(outcome) is Dead) and outcome.error:
        return replace(outcome, error=_text(outcome.error))
    return outcome


def _text(text: str) -> str:
    """An exception's text may hold what is no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()
