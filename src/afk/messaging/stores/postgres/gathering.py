"""Which of what waits leaves in one call."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from operator import methodcaller
from typing import Any

from ...store import Turn
from . import codec
from .batches import Batch, Piece, Single, Step, Turns
from .operations import Ask, Operation, Put, Take


def gather(operations: Iterable[Operation], ordered: Container[str]) -> list[Batch]:
    """The calls for all of these, in order. ordered: mailboxes whose threads are in order."""
    batches: list[Batch] = []
    for operation in operations:
        if isinstance(operation, Put):
            for index, turn in enumerate(operation.turns):
                _add_turn(batches, (operation, index), turn, ordered)
        elif isinstance(operation, Take):
            _add_take(batches, operation)
        elif isinstance(operation, Ask):
            batches.append(Single(operation))
    return batches


def _add_turn(batches: list[Batch], piece: Piece, turn: Turn, ordered: Container[str]) -> None:
    if codec.is_ack(turn):
        token = turn.token or ""
        _add(batches, Step, methodcaller("ack", piece, token))
    elif codec.is_plain(turn) and not (turn.sends[0].thread and turn.sends[0].mailbox in ordered):
        send = turn.sends[0]
        _add(batches, Step, methodcaller("send", piece, send))
    else:
        _add(batches, Turns, methodcaller("add", piece, turn))


def _add_take(batches: list[Batch], take: Take) -> None:
    """Into the last call, if it may have claims and has a place; else into a new one."""
    last = batches[-1] if batches else None
    if not (isinstance(last, Step | Turns) and last.take(take)):
        batches.append(step := Step())
        step.take(take)


def _add(batches: list[Batch], kind: Any, join: Callable[[Any], bool]) -> None:
    """Into the last batch, if it is of this kind and has a place; else into a new one."""
    if not (batches and isinstance(batches[-1], kind) and join(batches[-1])):
        batches.append(kind())
        join(batches[-1])
