"""From the port's values to what the functions take, and back."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from functools import lru_cache
from itertools import chain, islice
from typing import Any

from ...lifecycle import Again, Dead, Done, Extend, RetryPolicy, parse_token, token_of
from ...records import fingerprint, wire
from ...store import Accepted, Box, Claim, Leased, Refusal, Send, Turn

READY, STORED, RESULT, KNOWN, IGNORED = range(5)
"""What became of a send, as `003_turns.sql` says it."""

MOST_CLAIMED = 1000
"""Messages that one call claims at most."""
_MOST_FENCE = 2**62
_MOST_ATTEMPTS = 2**31 - 1


# -- text --------------------------------------------------------------------------------


def kept(text: str) -> str:
    """As PostgreSQL can keep it: it has no NUL in text. Equal only for equal texts."""
    if "\0" in text or "\1" in text:
        return text.replace("\1", "\0011").replace("\0", "\0010")
    return text


def shown(text: str) -> str:
    """What `kept` was given."""
    return text.replace("\0010", "\0").replace("\0011", "\1") if "\1" in text else text


def _maybe(text: str | None) -> str | None:
    return None if text is None else kept(text)


def _words(text: str) -> str:
    """An exception's text may hold what is no UTF-8."""
    return kept(text.encode("utf-8", "backslashreplace").decode())


def fenced(token: str) -> tuple[str, int]:
    """The id and fence of a token; of what is none, those of no message."""
    try:
        message_id, fence = parse_token(token)
    except ValueError:
        return "", -1
    return (message_id, fence) if fence < _MOST_FENCE else ("", -1)


# -- turns -------------------------------------------------------------------------------


def is_ack(turn: Turn) -> bool:
    """Whether it only says that a message is done."""
    return (
        type(turn.outcome) is Done
        and turn.token is not None
        and not turn.sends
        and turn.roster is None
    )


def is_plain(turn: Turn) -> bool:
    """Whether it is one send that goes into its mailbox, or is refused, and no more."""
    if len(turn.sends) != 1 or turn.token is not None or turn.roster is not None:
        return False
    [send] = turn.sends
    special = send.alone or send.answers is not None or send.dead is not None
    return send.compare and not special


def plain_columns(sends: Sequence[Send]) -> tuple[list[Any], ...]:
    """The arrays of `step` for plain sends."""
    return (
        [send.id for send in sends],
        [send.mailbox for send in sends],
        [send.sender for send in sends],
        [send.rank for send in sends],
        _sparse([_maybe(send.key) for send in sends]),
        _sparse([kept(send.thread) or None for send in sends]),
        _sparse([_maybe(send.chain) for send in sends]),
        _sparse([send.delay or None for send in sends]),  # NULL is no delay
        _sparse([send.ttl for send in sends]),
        [send.retention for send in sends],
        [send.history for send in sends],
        [min(send.history_max, _MOST_FENCE) for send in sends],
        _sparse([_digest(send) for send in sends]),
        [wire(send.body) for send in sends],
        [send.awaited for send in sends],
    )


def _sparse(column: list[Any]) -> list[Any]:
    """Empty if there is nothing in it: `unnest` fills up shorter arrays with NULL, and the driver
    takes its time over each element."""
    return [] if column.count(None) == len(column) else column


def _digest(send: Send) -> bytes | None:
    """Of what must be known after its body is gone: the rest is compared by its body."""
    outlives = send.key is not None or send.awaited or send.answers is not None
    return fingerprint(send.body) if outlives else None


def turn_columns(turns: Sequence[Turn], held: Container[str]) -> tuple[list[Any], ...]:
    """The arrays of `take_turns`. held: the tokens whose leases are being renewed."""
    rows = [_outcome(turn, held) for turn in turns]
    sends = [send for turn in turns for send in turn.sends]
    return (
        *([row[column] for row in rows] for column in range(7)),
        [turn.roster for turn in turns],
        [len(turn.sends) for turn in turns],
        *_send_columns(sends),
    )


def _outcome(turn: Turn, held: Container[str]) -> tuple[Any, ...]:
    """id, fence, outcome, seconds, flag, reason, error."""
    if turn.token is None or turn.outcome is None:
        return None, None, None, None, None, None, None
    token, outcome = fenced(turn.token), turn.outcome
    if isinstance(outcome, Done):
        return *token, "done", None, None, None, None
    if isinstance(outcome, Again):
        return *token, "again", outcome.delay, outcome.counts, None, _words(outcome.error)
    if isinstance(outcome, Dead):
        return *token, "dead", None, None, outcome.reason, _words(outcome.error)
    assert isinstance(outcome, Extend)
    stays = outcome.hold is None and turn.token in held
    return *token, "extend", outcome.seconds, stays, None, None


def _send_columns(sends: Sequence[Send]) -> tuple[list[Any], ...]:
    return (
        [send.id for send in sends],
        [send.mailbox for send in sends],
        [send.sender for send in sends],
        [send.rank for send in sends],
        [_maybe(send.key) for send in sends],
        [send.compare for send in sends],
        [send.delay for send in sends],
        [send.ttl for send in sends],
        [kept(send.thread) or None for send in sends],
        [_maybe(send.chain) for send in sends],
        [send.awaited for send in sends],
        [send.answers for send in sends],
        [send.alone for send in sends],
        [send.dead and send.dead[0] for send in sends],
        [send.dead and _words(send.dead[1]) for send in sends],
        [send.retention for send in sends],
        [send.history for send in sends],
        [min(send.history_max, _MOST_FENCE) for send in sends],
        [_digest(send) for send in sends],
        [wire(send.body) for send in sends],
    )


def refusal(row: Any) -> Refusal:
    """Why a turn was not taken."""
    return Refusal(row["refusal"], row["mailbox"] or "", row["id"] or "", row["bound"] or 0)


def accepted(ids: Iterable[str], how: Iterable[int]) -> tuple[Accepted, ...]:
    """What became of a turn's sends."""
    return tuple(
        [
            Accepted(message_id, became == KNOWN, became == IGNORED)
            for message_id, became in zip(ids, how, strict=True)
        ]
    )


# -- claims ------------------------------------------------------------------------------


def claim_columns(claims: Sequence[Claim]) -> tuple[list[Any], ...]:
    """The arrays of `step` for claims."""
    policies = [claim.policy for claim in claims]
    backoffs = [_backoffs(policy) for policy in policies]
    return (
        [claim.mailbox for claim in claims],
        [min(claim.limit, MOST_CLAIMED) for claim in claims],
        [claim.lease for claim in claims],
        [min(policy.max_attempts, _MOST_ATTEMPTS) for policy in policies],
        [len(each) for each in backoffs],
        list(chain(*backoffs)),
        [policy.jitter == "full" for policy in policies],
        [claim.chance for claim in claims],
    )


@lru_cache(maxsize=64)
def _backoffs(policy: RetryPolicy) -> list[float]:
    """The longest delay after each attempt but the last; past 64 doublings it is the same."""
    return [policy.delay(attempt, 1.0) for attempt in range(1, min(policy.max_attempts, 67))]


def leased(claims: Sequence[Claim], row: Any) -> list[tuple[Leased, ...]]:
    """What each claim took."""
    columns = [
        row[f"got_{name}"] or () for name in ("ids", "fences", "attempts", "redrives", "bodies")
    ]
    found = zip(*columns, strict=True)
    return [
        tuple(
            [
                Leased(
                    token=token_of(message_id, fence),
                    id=message_id,
                    mailbox=claim.mailbox,
                    body=body,
                    attempt=attempt,
                    redrives=redrives,
                )
                for message_id, fence, attempt, redrives, body in islice(found, number)
            ]
        )
        for claim, number in zip(claims, row["got"] or (), strict=True)
    ]


def box(row: Any) -> Box:
    """A mailbox as it was created."""
    return Box(
        name=row["name"],
        ordered=row["ordered"],
        capacity=row["capacity"],
        max_bytes=row["max_bytes"],
    )
