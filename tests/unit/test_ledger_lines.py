"""The lines of a shelf: read in order, whatever left them and came back."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afk.messaging.store import Box, Send
from afk.messaging.stores.ledger.rows import UNTOUCHED, Entry, Shelf, entry

moves = st.lists(
    st.tuples(
        st.sampled_from(("send", "send", "send", "claim", "come back", "end", "redrive")),
        st.integers(0, 20),
    ),
    min_size=5,
    max_size=100,
)
"""The number: which one, or of a send its rank."""


def sent(place: int, rank: int = 2) -> Entry:
    return entry(Send(body=b"", id=str(place), mailbox="bob", sender="ada", rank=rank), place, 0.0)


def by_line(row: Entry) -> tuple[int, int]:
    return row.rank, row.place


@given(moves)
def test_what_is_ready_is_read_in_order(moves: list[tuple[str, int]]) -> None:
    """By rank, then place; a redriven message stands at its new place alone."""
    shelf, places = Shelf(Box(name="bob")), count(1)
    ready: list[Entry] = []
    claimed: list[Entry] = []
    ended: list[Entry] = []

    def taken(rows: list[Entry], index: int) -> Entry:
        return rows.pop(index % len(rows))

    for move, number in moves:
        if move == "send":
            ready.append(row := sent(next(places), min(number // 4, 3)))
            shelf.enter(row)
            shelf.add(row)
        elif move == "claim":
            first = shelf.pop()
            assert first is min(ready, key=by_line, default=None)
            if first is not None:
                ready.remove(first)
                claimed.append(first)
        elif move == "come back" and claimed:
            ready.append(row := taken(claimed, number))
            shelf.put_back(row)
        elif move == "end" and (rows := ready or claimed):
            ended.append(row := taken(rows, number))
            assert shelf.leave(row) is None
        elif move == "redrive" and ended:
            ready.append(row := taken(ended, number))
            row.place = next(places)
            shelf.enter(row)
            shelf.add(row)
        assert list(shelf.in_line()) == sorted(ready, key=by_line)
        assert shelf.has_ready == bool(ready)


def test_a_shelf_made_anew_knows_nothing_of_what_left_the_old_one() -> None:
    """A message that ended on a shelf, and is redriven once its mailbox was registered again."""
    row = sent(1)
    old = Shelf(Box(name="bob"))
    old.enter(row)
    old.add(row)
    old.leave(row)
    new = Shelf(Box(name="bob"))
    row.place = 2
    new.enter(row)
    new.add(row)
    assert list(new.in_line()) == [row]
    assert new.pop() is row
    assert new.pop() is None


def test_what_waits_has_no_past_of_its_own() -> None:
    """That is a third of its entry; what all share cannot be written into."""
    first, second = sent(1), sent(2)
    assert first.past is second.past is UNTOUCHED
    with pytest.raises(AttributeError):
        first.past.fence = 1
    first.lived().fence = 1
    assert second.past.fence == 0
