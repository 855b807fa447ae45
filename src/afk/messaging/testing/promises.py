"""The promises of docs/contract.md, and what of a store decides how far each one goes."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from ..store import Capabilities


class Promise(Struct, frozen=True):
    """One promise. flag: the capability a store may lack or have less of; None: all keep it."""

    number: int
    title: str
    flag: str | None = None
    limited: str = "no"
    """What a store without the flag gives instead."""


PROMISES = (
    Promise(1, "Accepted is kept", "durability"),
    Promise(2, "The same key is the same message"),
    Promise(3, "At least once, under a lease"),
    Promise(3, "... renewed while the handler blocks its event loop", "renews_when_blocked"),
    Promise(4, "`receive()` acks once the message is in your hands"),
    Promise(5, "A turn is atomic"),
    Promise(6, "Effects too, in a transaction", "transactions", "at least once"),
    Promise(7, "Retries back off, then stop"),
    Promise(8, "Order"),
    Promise(9, "An answer belongs to its request"),
    Promise(10, "Bounded, never trimmed"),
    Promise(11, "A typo is an error"),
    Promise(12, "Loops end"),
    Promise(13, "Cancellation loses nothing"),
    Promise(14, "Everything is readable"),
)


def kept(promise: Promise, gives: Iterable[Capabilities]) -> str:
    """How far a store goes in a promise, over all the ways it can be set up."""
    if promise.flag is None:
        return "yes"
    words = [_word(getattr(each, promise.flag), promise.limited) for each in gives]
    return " or ".join(dict.fromkeys(words))


def _word(value: object, limited: str) -> str:
    return ("yes" if value else limited) if isinstance(value, bool) else str(value)
