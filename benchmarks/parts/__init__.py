"""What can be measured; each part has `STORES` and `measure(wish, store) -> Result`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wish:
    """How much of it. workloads, peers: only those whose name has one of these words in it."""

    quick: bool = True
    workloads: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()


def named(name: str, words: tuple[str, ...]) -> bool:
    """Whether one of the words is in the name; without words it always is."""
    return not words or any(word.lower() in name.lower() for word in words)
