"""What a look at the ledger goes through: what it shows, and not all there is."""

from __future__ import annotations

import pytest

from afk.messaging import AgentMessage
from afk.messaging.records import letter_record
from afk.messaging.store import Box, Claim, Query, Send, Turn
from afk.messaging.stores.ledger import Ledger, views

STORED = 500


def ledger() -> Ledger:
    """So many wait, some of them returned; each in a chain of its own."""
    made = Ledger()
    made.bind(Box(name="bob", capacity=10_000))
    for number in range(STORED):
        name = f"m{number}"
        message = AgentMessage("ada", "bob", number, id=name, correlation_id=f"c{number}")
        send = Send(
            body=letter_record(message), id=name, mailbox="bob", sender="ada", chain=f"c{number}"
        )
        assert made.take(Turn(sends=(send,)), 1.0).refusal is None
    made.claim(Claim(mailbox="bob", limit=STORED // 5, lease=1.0), 1.0)
    made.pass_time(500.0)  # their leases ended, and the pauses after that
    return made


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(mailbox="bob", order="delivery", state="pending", limit=3), ["m0", "m1", "m2"]),
        (Query(chain="c7"), ["m7"]),
        (Query(chain="m9"), ["m9"]),
        (Query(ids=("m3",)), ["m3"]),
        (Query(limit=2), ["m0", "m1"]),
    ],
)
def test_a_look_goes_through_what_it_shows(
    query: Query, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    books, looked_at = ledger(), []
    monkeypatch.setattr(views, "_fits", lambda row, query: looked_at.append(row.id) or True)
    assert [found.id for found in books.browse(query, 500.0)] == expected
    assert looked_at == expected
