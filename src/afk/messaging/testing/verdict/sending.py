"""What was accepted is there, once, as it was sent; and nothing else is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from ..history import Event
from .parts import Parts, Rules, refused

ENDED = {"done", "dead", "cancelled"}


def nothing_is_lost(history: Parts, rules: Rules) -> Iterator[str]:
    """I1: what was accepted has ended, whatever happened meanwhile."""
    for asked, end in history.accepted:
        final = history.final.get(end.id)
        if final is None:
            yield f"{end.id}, accepted under {asked.key!r}, is not there"
        elif rules.drained and final.outcome not in ENDED:
            yield f"{end.id} is still {final.outcome}"


def nothing_is_invented(history: Parts, rules: Rules) -> Iterator[str]:
    """I2: what came, or is there, was sent: to this mailbox, with this content, and not refused."""
    sent = {(asked.mailbox, asked.digest) for asked, end in history.sends if not refused(end)}
    named: dict[str, Event] = {}
    for asked, end in history.accepted:
        named.setdefault(end.id, asked)
    seen = [*history.of["claim", "ok"], *history.of["handle", "invoke"], *history.final.values()]
    for event in seen:
        first = named.get(event.id)
        if (event.mailbox, event.digest) not in sent:
            yield f"{event.kind} of {event.id} in {event.mailbox!r}: nobody sent that"
        elif first and (first.mailbox, first.digest) != (event.mailbox, event.digest):
            yield f"{event.kind} of {event.id} has not the content it was accepted with"


def a_key_is_one_message(history: Parts, rules: Rules) -> Iterator[str]:
    """I3: all that was accepted under a key is the same message, with the same content."""
    of_key = defaultdict(list)
    for asked, end in history.accepted:
        if asked.key:
            of_key[asked.sender, asked.mailbox, asked.key].append((asked, end))
    there = defaultdict(set)
    for event in history.final.values():
        if event.key:
            there[event.sender, event.mailbox, event.key].add(event.id)
    for key, sends in of_key.items():
        if len({end.id for _, end in sends}) > 1:
            yield f"{key} has {sorted({end.id for _, end in sends})}"
        if len({asked.digest for asked, _ in sends}) > 1:
            yield f"{key} was accepted with two contents"
        if sum(not end.duplicate for _, end in sends) > 1:
            yield f"{key} was new more than once"
        if len(there[key]) > 1:
            yield f"{key} is there as {sorted(there[key])}"


def the_sums_are_right(history: Parts, rules: Rules) -> Iterator[str]:
    """I10: the store has what was accepted, what may have been, and nothing else, each once."""
    accepted = {end.id for _, end in history.accepted}
    doubtful = sum(end is None or end.phase == "unknown" for _, end in history.sends)
    more = len(history.final) - len(accepted & history.final.keys())
    if more > doubtful:
        yield f"{more} messages more than were accepted, and only {doubtful} sends are in doubt"
    times = Counter((event.process, event.id) for event in history.of["final", "ok"])
    for (_, name), count in times.items():
        if count > 1:
            yield f"{name} is there {count} times"
