"""A ledger as bytes, and back: what another process needs to go on from the same state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Raw, Struct

from ...lifecycle import FINAL
from ...records import wire
from ...store import Box
from .ledger import Ledger
from .rows import GONE, OUT, UNTOUCHED, Entry, Past, Shelf

PAGE = 1 << 18
"""Bytes of rows that are encoded at once, roughly: other threads run in between."""

_PLAIN = tuple(sorted({*Entry.__struct_fields__} - {"body", "line", "past"}))
_PAST = tuple(sorted({*Past.__struct_fields__} - {"answer"}))
_TIMERS = ("due", "expiry")
_KEPT = ("fading", "trims")

_pack = msgspec.msgpack.Encoder().encode


class _Head(Struct, array_like=True):
    """What is not in the rows. boxes: with the time each was last claimed from; died: whom the next
    answer tells of."""

    version: int
    accepted: int
    ended: int
    boxes: list[tuple[Box, float | None]]
    died: list[str]


_heads = msgspec.msgpack.Decoder(_Head)
_rows = msgspec.msgpack.Decoder(list[list[Any]])


def pages(ledger: Ledger) -> Iterator[bytes]:
    """The ledger, which must not change meanwhile; equal ledgers give equal bytes."""
    boxes = [(shelf.box, shelf.last_seen) for shelf in ledger.shelves.values()]
    yield _pack(_Head(ledger.version, ledger.accepted, ledger.books.ended, boxes, ledger.untold))
    page: list[Raw] = []
    size = 0
    for row in ledger.books.rows.values():
        packed = _pack(_plain(row, ledger))
        page.append(Raw(packed))
        size += len(packed)
        if size > PAGE:
            yield _pack(page)
            page, size = [], 0
    yield _pack(page)


def load(image: Iterable[bytes]) -> Ledger:
    """The ledger of these pages."""
    head, *rest = image
    ledger = Ledger()
    start = _heads.decode(head)
    ledger.version, ledger.accepted, ledger.books.ended = start.version, start.accepted, start.ended
    ledger.untold = start.died
    for box, seen in start.boxes:
        shelf = ledger.shelves[box.name] = Shelf(box)
        shelf.last_seen = seen
    answered: list[Past] = []
    for page in rest:
        for values in _rows.decode(page):
            _restore(ledger, values, answered)
    for past in answered:  # so far each has a stand-in
        assert past.answer is not None
        past.answer = ledger.books.rows.get(past.answer.id, past.answer)
    dead = [row for row in ledger.books.rows.values() if row.state == "dead"]
    ledger.books.dead = {row.id: row for row in sorted(dead, key=lambda row: row.past.ended)}
    return ledger


def _plain(row: Entry, ledger: Ledger) -> list[Any]:
    return [
        None if row.body is None else wire(row.body),
        None if row.past.answer is None else _answer(row.past.answer, ledger),
        *[getattr(ledger, name).at(row) for name in _TIMERS],
        *[getattr(ledger.books, name).at(row) for name in _KEPT],
        OUT if row.line == GONE else row.line,
        None if row.past is UNTOUCHED else [getattr(row.past, name) for name in _PAST],
        *[getattr(row, name) for name in _PLAIN],
    ]


def _answer(answer: Entry, ledger: Ledger) -> tuple[str, bytes | None]:
    """Its id; and its body if it is no longer a row of its own, but still read by its request."""
    gone = ledger.books.rows.get(answer.id) is not answer
    return answer.id, wire(answer.body) if gone and answer.body is not None else None


def _restore(ledger: Ledger, values: list[Any], answered: list[Past]) -> None:
    body, answer, due, expiry, fading, trims, line, past, *plain = values
    row = Entry(body=body, line=line, **dict(zip(_PLAIN, plain, strict=True)))
    if past is not None:
        row.past = Past(**dict(zip(_PAST, past, strict=True)))
    if answer is not None:
        row.past.answer = Entry(*answer)
        answered.append(row.past)
    ledger.books.add(row)
    if row.state not in FINAL:
        shelf = ledger.shelves.get(row.mailbox)
        if shelf is not None:
            shelf.restore(row)
        else:  # in a consumer's hands since its mailbox was unregistered
            ledger.leased_out.setdefault(row.mailbox, []).append(row)
    for timers, at in (
        (ledger.due, due),
        (ledger.expiry, expiry),
        (ledger.books.fading, fading),
        (ledger.books.trims, trims),
    ):
        if at is not None:
            timers.set(row, at)
