"""From the port's values to what the scripts take, and back. Times in whole ms on this side."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any, cast

import msgspec
from msgspec import Struct

from ...lifecycle import Again, Dead, Done, Outcome, parse_token, token_of
from ...records import fingerprint, wire
from ...store import FATE, Accepted, Box, Claim, Leased, Refusal, Send, Turn, Verdict

FOREVER = 10**13
"""ms; what is later than this is never, and still exact in Lua."""

MOST_CLAIMED = 200
"""Messages that one claim takes at most: the server does nothing else meanwhile."""

_pack = msgspec.msgpack.Encoder().encode


def ms(seconds: float) -> int:
    """Whole milliseconds, one at least of what is not zero."""
    return min(FOREVER, max(round(seconds * 1000), 1)) if seconds > 0 else 0


class Packed(Struct, frozen=True):
    """Turns as put.lua takes them, and the bodies of their sends. size: bytes of these."""

    turns: tuple[bytes, ...]
    bodies: tuple[bytes, ...]
    size: int


def packed(turns: tuple[Turn, ...], held: Container[str], heard: Container[str]) -> Packed:
    """Turns for put.lua. held: the tokens whose leases are being renewed; heard: the topics that
    someone here listens to."""
    bodies = tuple([wire(send.body) for turn in turns for send in turn.sends])
    texts = tuple([_turn(turn, held, heard) for turn in turns])
    return Packed(texts, bodies, sum(map(len, bodies)) if bodies else 0)


def joined(parts: Iterable[Packed]) -> tuple[Any, ...]:
    """The arguments of put.lua for all of these, in order."""
    turns: list[bytes] = []
    bodies: list[bytes] = []
    for part in parts:
        turns += part.turns
        bodies += part.bodies
    return b"".join(turns), *bodies


def _values(values: tuple[Any, ...]) -> bytes:
    """MessagePack of each, one after another: that of the tuple, less what says how long it is."""
    return _pack(values)[1 if len(values) < 16 else 3 :]


def _turn(turn: Turn, held: Container[str], heard: Container[str]) -> bytes:
    message_id, fence = _token(turn.token)
    head = (
        message_id,
        fence,
        *_outcome(turn.outcome, turn.token is not None and turn.token in held),
        False if turn.roster is None else turn.roster,
        len(turn.sends),
    )
    return b"".join([_values(head), *[_values(_send(send, heard)) for send in turn.sends]])


def _token(token: str | None) -> tuple[str | bool, int]:
    if token is None:
        return False, 0
    try:
        message_id, fence = parse_token(token)
    except ValueError:
        message_id, fence = "", -1  # no message has this id: its lease is lost
    return (message_id, fence) if fence <= FOREVER else ("", -1)


def _outcome(outcome: Outcome | None, held: bool) -> tuple[Any, ...]:
    if outcome is None:
        return False, False, False, False
    if isinstance(outcome, Done):
        return "done", False, False, False
    if isinstance(outcome, Again):
        return "again", ms(outcome.delay), _text(outcome.error), outcome.counts
    if isinstance(outcome, Dead):
        return "dead", outcome.reason, _text(outcome.error), False
    return "extend", ms(outcome.seconds), False, held and outcome.hold is None


def _text(text: str) -> str:
    """An exception's text may hold what is no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def _send(send: Send, heard: Container[str]) -> tuple[Any, ...]:
    reason, error = send.dead or (False, "")
    return (
        send.id,
        send.mailbox,
        send.sender,
        send.rank,
        _or_false(send.key),
        send.compare,
        ms(send.delay),
        False if send.ttl is None else ms(send.ttl),
        send.thread,
        _or_false(send.chain),
        send.awaited,
        _or_false(send.answers),
        send.alone,
        reason,
        _text(error),
        ms(send.retention),
        ms(send.history),
        min(send.history_max, FOREVER),
        fingerprint(send.body).hex(),
        send.awaited and FATE + send.id in heard,
    )


def _or_false(text: str | None) -> str | bool:
    return False if text is None else text


def verdict(answer: list[Any]) -> Verdict | None:
    """One turn's; None if it must be asked again."""
    code, *rest = answer
    if code == 2:
        return None
    if code == 1:
        kind, mailbox, message_id, limit = rest
        return Verdict(
            Refusal(
                cast("Any", kind.decode()), mailbox.decode(), message_id.decode(), int(limit or 0)
            )
        )
    accepted = [
        Accepted(message_id.decode(), how == b"duplicate", how == b"ignored")
        for message_id, how in zip(rest[::2], rest[1::2], strict=True)
    ]
    return Verdict(None, tuple(accepted))


def claim(request: Claim, waiters: int) -> tuple[Any, ...]:
    """The arguments of claim.lua."""
    policy = request.policy
    return (
        request.mailbox,
        min(request.limit, MOST_CLAIMED),
        ms(request.lease),
        policy.max_attempts,
        ms(policy.base),
        float(policy.factor),
        ms(policy.cap),
        policy.jitter,
        request.chance,
        waiters,
    )


def leased(mailbox: str, taken: list[Any]) -> tuple[Leased, ...]:
    """What claim.lua took."""
    return tuple(
        [
            Leased(
                token=token_of(message_id.decode(), fence),
                id=message_id.decode(),
                mailbox=mailbox,
                body=body,
                attempt=attempt,
                redrives=redrives,
            )
            for message_id, fence, attempt, redrives, body in taken
        ]
    )


def box(name: str, values: list[bytes]) -> Box:
    """A mailbox as it was created."""
    ordered, capacity, max_bytes = values
    return Box(name=name, ordered=ordered == b"1", capacity=int(capacity), max_bytes=int(max_bytes))


def texts(answer: list[bytes]) -> tuple[str, ...]:
    """Ids or topics."""
    return tuple([text.decode() for text in answer])
