"""Ends, their order, and that they come."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ..history import Event
from .holding import ENDS_IT
from .parts import Parts, Rules, accepted, at

Sent = tuple[Event, Event]


def the_dead_have_a_reason(history: Parts, rules: Rules) -> Iterator[str]:
    """I8: dead letters have a reason; who rejected a message finds it dead, unless redriven; who
    acked it, done."""
    for name, final in history.final.items():
        if final.outcome == "dead" and not final.error:
            yield f"{name} is dead without a reason"
    for name, settles in history.settles.items():
        ended = history.final.get(name)
        if ended is None:
            continue
        for asked, end in settles:
            if not accepted(end):
                continue
            if asked.outcome == "done" and ended.outcome != "done":
                yield f"{name} was acked and is {ended.outcome}"
            undone = asked.outcome == "dead" and ended.outcome not in ("dead", "cancelled")
            if undone and name not in history.redriven:
                yield f"{name} was rejected and is {ended.outcome}"


def order_is_kept(history: Parts, rules: Rules) -> Iterator[str]:
    """I9: of one sender, mailbox and priority, what was accepted before another was sent comes
    first."""
    if not rules.ordered:
        return
    first = {name: turns[0] for name, turns in history.turns.items() if turns[0].attempt <= 1}
    lines: dict[tuple[str, str, int], list[Sent]] = defaultdict(list)
    for asked, end in history.accepted:
        if end.id in first and not end.duplicate:
            lines[asked.sender, asked.mailbox, asked.rank].append((asked, end))
    for line, sends in lines.items():
        yield from (
            f"{line}: {other} came before {one}, which was accepted first"
            for one, other in _overtaken(sends, first)
        )


def _overtaken(sends: list[Sent], first: dict[str, Event]) -> Iterator[tuple[str, str]]:
    """Who came before the last to come of those that were accepted before it was sent."""
    before = sorted((end for _, end in sends), key=at, reverse=True)
    last: Event | None = None
    for asked, end in sorted(sends, key=lambda send: send[0].at):
        while before and before[-1].at < asked.at:
            turn = first[before.pop().id]
            if last is None or _begun(turn) > _begun(last):
                last = turn
        if last is not None and first[end.id].at < _begun(last):
            yield last.id, end.id


def _begun(turn: Event) -> float:
    return turn.since or turn.at


def the_end_is_final(history: Parts, rules: Rules) -> Iterator[str]:
    """I11: after it was settled for good, or cancelled, a message is not delivered; a dead one is,
    once redriven."""
    for event in history.of["cancel", "ok"]:
        yield from _after(history, event, event, 0)
    for name, settles in history.settles.items():
        attempts = {turn.token: turn.attempt for turn in history.turns.get(name, ()) if turn.token}
        for asked, end in settles:
            if end and accepted(end) and asked.outcome in ENDS_IT:
                yield from _after(history, asked, end, attempts.get(asked.token, 0))


def _after(history: Parts, asked: Event, end: Event, attempt: int) -> Iterator[str]:
    """The turns that began after the end, and not merely were noted then.

    attempt: of the turn that ended it, 0 if that is not known. A handler may begin long after its
    message was given to it, if its process stood still; an earlier attempt was given before.
    """
    for turn in history.turns.get(asked.id, ()):
        anew = _begun(turn) > end.at or (attempt and turn.attempt > attempt)
        if turn.kind == "handle" and turn.attempt < attempt and history.held_up(turn):
            continue
        redriven = asked.outcome == "dead" and history.redriven_between(asked.id, 0, turn.at)
        if turn.at > end.at and anew and not redriven:
            yield f"{asked.id} was delivered to {turn.process} after its end"


def calls_end_in_time(history: Parts, rules: Rules) -> Iterator[str]:
    """I15: no call outlives its deadline by more than the slack, or never ends."""
    over = max((event.at for event in history.of["drained", "ok"]), default=0.0)
    for events in history.of.values():
        for asked in events:
            if asked.phase != "invoke" or asked.deadline is None:
                continue
            end = history.end(asked)
            until = over if end is None else end.at
            late = until - asked.at - asked.deadline - rules.slack
            if late > 0 and not history.faulted(asked.process, asked.at, until):
                how = "did not end" if end is None else "ended"
                yield f"a {asked.kind} of {asked.process} {how}, {late:.2f} s late"


def the_place_was_drained(history: Parts, rules: Rules) -> Iterator[str]:
    """I13: after the last fault all that waited was worked off, so that this is a verdict."""
    if not history.of["drained", "ok"]:
        yield "the history ends before everything was worked off"
