"""Whether a history keeps the promises. It knows events, and nothing of the library.

Every function takes the whole history of one place and yields a sentence for each violation. A
history is judged once all faults are over, everyone has stopped, and the place was drained: that
nothing is lost can only be said of what had its time to arrive.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from .history import SERVER, Event

ENDED = {"done", "dead", "cancelled"}
ENDS_IT = {"done", "dead"}
"""Outcomes of a settle after which a message is not delivered again."""


@dataclass(frozen=True)
class Rules:
    """What holds where the history comes from.

    transactions: effects are in the store's own transaction, so one for each message that is done.
    max_attempts: of every consumer; None if they differ. ordered: deliveries of one sender and
    priority began in order (one consumer at a time, no retries overtaking). slack: seconds that a
    call may outlive its deadline.
    """

    transactions: bool = False
    max_attempts: int | None = None
    ordered: bool = False
    slack: float = 1.0


@dataclass(frozen=True)
class Verdict:
    """What was found: a sentence for each violation, and how much there was to judge."""

    violations: list[str]
    counts: dict[str, int]


def judge(events: Iterable[Event], rules: Rules = Rules()) -> Verdict:
    """Judge a history by every invariant."""
    history = Parts(sorted(events, key=lambda event: event.at))
    found = [
        f"{name}: {sentence}"
        for name, check in INVARIANTS.items()
        for sentence in check(history, rules)
    ]
    return Verdict(found, history.counts())


class Parts:
    """A history, sorted out."""

    def __init__(self, events: list[Event]) -> None:
        self.of: dict[tuple[str, str], list[Event]] = defaultdict(list)
        self.ends: dict[tuple[str, int], Event] = {}
        for event in events:
            self.of[event.kind, event.phase].append(event)
            if event.call and event.phase != "invoke":
                self.ends[event.process, event.call] = event
        self.sends = [(asked, self.end(asked)) for asked in self.of["send", "invoke"]]
        self.accepted = [(asked, end) for asked, end in self.sends if end and end.phase == "ok"]
        self.final = {event.id: event for event in self.of["final", "ok"]}
        self.faults = self.of["fault", "ok"]
        self.turns: dict[str, list[Event]] = defaultdict(list)
        """By message: each time it came into someone's hands, in order."""
        for event in sorted([*self.of["claim", "ok"], *self.of["handle", "invoke"]], key=_at):
            self.turns[event.id].append(event)
        self.settles: dict[str, list[tuple[Event, Event | None]]] = defaultdict(list)
        for event in self.of["settle", "invoke"]:
            self.settles[event.id].append((event, self.end(event)))
        self.redriven: dict[str, list[float]] = defaultdict(list)
        for event in self.of["redrive", "ok"]:
            self.redriven[event.id].append(event.at)

    def end(self, asked: Event) -> Event | None:
        """How the call ended, as far as its process lived to see it."""
        return self.ends.get((asked.process, asked.call)) if asked.call else None

    def faulted(self, process: str, since: float, until: float) -> bool:
        """Whether something was done to this process between the two."""
        return any(
            since <= fault.at <= until and fault.process in {process, SERVER}
            for fault in self.faults
        )

    def counts(self) -> dict[str, int]:
        """Figures for a report."""
        return {
            "sends": len(self.sends),
            "accepted": len({end.id for _, end in self.accepted}),
            "unknown": sum(end is None or end.phase == "unknown" for _, end in self.sends),
            "deliveries": sum(map(len, self.turns.values())),
            "repeats": sum(len(turns) - 1 for turns in self.turns.values()),
            "effects": len(self.of["effect", "ok"]),
            "faults": len(self.faults),
            **Counter(event.outcome for event in self.final.values()),
        }


def _at(event: Event) -> float:
    return event.at


def nothing_is_lost(history: Parts, rules: Rules) -> Iterator[str]:
    """I1: what was accepted has ended, whatever happened meanwhile."""
    for asked, end in history.accepted:
        final = history.final.get(end.id)
        if final is None:
            yield f"{end.id}, accepted under {asked.key!r}, is not there"
        elif final.outcome not in ENDED:
            yield f"{end.id} is still {final.outcome}"


def nothing_is_invented(history: Parts, rules: Rules) -> Iterator[str]:
    """I2: what came, or is there, was sent: to this mailbox, with this content."""
    sent = {(asked.mailbox, asked.digest) for asked, _ in history.sends}
    named = {end.id: asked for asked, end in history.accepted}
    seen = [*history.of["claim", "ok"], *history.of["handle", "invoke"], *history.final.values()]
    for event in seen:
        asked = named.get(event.id)
        if (event.mailbox, event.digest) not in sent:
            yield f"{event.kind} of {event.id} in {event.mailbox!r}: nobody sent that"
        elif asked and (asked.mailbox, asked.digest) != (event.mailbox, event.digest):
            yield f"{event.kind} of {event.id} has not the content it was accepted with"


def a_key_is_one_message(history: Parts, rules: Rules) -> Iterator[str]:
    """I3: all that was accepted under a key is the same message, with the same content."""
    of_key = defaultdict(list)
    for asked, end in history.accepted:
        if asked.key:
            of_key[asked.sender, asked.mailbox, asked.key].append((asked, end))
    for key, sends in of_key.items():
        if len({end.id for _, end in sends}) > 1:
            yield f"{key} has {sorted({end.id for _, end in sends})}"
        if len({asked.digest for asked, _ in sends}) > 1:
            yield f"{key} was accepted with two contents"
        if sum(not end.duplicate for _, end in sends) > 1:
            yield f"{key} was new more than once"
        there = {
            event.id
            for event in history.final.values()
            if event.key == key[2] and event.mailbox == key[1] and event.sender == key[0]
        }
        if len(there) > 1:
            yield f"{key} is there as {sorted(there)}"


def effects_happen_once(history: Parts, rules: Rules) -> Iterator[str]:
    """I4: in the store's own transaction one effect for what is done, at most one for the rest."""
    if not rules.transactions:
        return
    effects = Counter(event.id for event in history.of["effect", "ok"])
    for name, count in effects.items():
        if count > 1:
            yield f"{name} has {count} effects"
        if name not in history.final or history.final[name].outcome != "done":
            yield f"{name} has an effect and is not done"
    for name, final in history.final.items():
        if final.outcome == "done" and not effects[name]:
            yield f"{name} is done without its effect"


def repeats_are_explained(history: Parts, rules: Rules) -> Iterator[str]:
    """I4: a message comes again only if the turn before failed, was given back, lost its lease,
    or something was done to its process."""
    for name, turns in history.turns.items():
        for before, after in pairwise(turns):
            if not (_over(history, before, after) or _redriven(history, before, after)):
                yield f"{name} came to {after.process} while {before.process} had it"


def _over(history: Parts, before: Event, after: Event) -> bool:
    """Whether a turn had to end before another one could begin."""
    if history.faulted(before.process, before.at - before.lease, after.at):
        return True
    if before.kind == "handle":
        end = history.end(before)
        return end is not None and end.phase != "ok" and end.at <= after.at
    if before.lease and before.at + before.lease <= after.at:
        return True
    return any(
        asked.token == before.token
        and asked.at <= after.at
        and asked.outcome != "extend"
        and not (end and end.phase == "ok" and asked.outcome in ENDS_IT)
        for asked, end in history.settles[before.id]
    )


def _redriven(history: Parts, before: Event, after: Event) -> bool:
    return any(before.at <= at <= after.at for at in history.redriven[before.id])


def one_lease_at_a_time(history: Parts, rules: Rules) -> Iterator[str]:
    """I5: nobody is given what another holds: before its lease can have ended, unless settled."""
    for name, turns in history.turns.items():
        for before, after in pairwise(turns):
            if before.kind != "claim" or after.at >= before.since + before.lease:
                continue
            released = any(
                asked.token == before.token and asked.at <= after.at and asked.outcome != "extend"
                for asked, _ in history.settles[name]
            )
            if not released and not _redriven(history, before, after):
                yield f"{name} was given to {after.process} inside the lease of {before.process}"


def a_stale_settle_fails(history: Parts, rules: Rules) -> Iterator[str]:
    """I6: once another has the message, who had it before can settle nothing."""
    for name, settles in history.settles.items():
        granted = {event.token: event for event in history.turns[name] if event.token}
        for asked, end in settles:
            mine = granted.get(asked.token)
            if mine is None or end is None or end.phase != "ok":
                continue
            later = [g for g in granted.values() if mine.at < g.at and g.at < asked.at]
            if later:
                yield f"{name}: {asked.outcome} by {asked.process}, which {later[0].process} had"
    for name, settles in history.settles.items():
        ends = Counter(
            asked.token
            for asked, end in settles
            if end and end.phase == "ok" and asked.outcome != "extend"
        )
        for count in ends.values():
            if count > 1:
                yield f"{name} was settled {count} times by one holder"


def attempts_are_counted(history: Parts, rules: Rules) -> Iterator[str]:
    """I7: attempts count from one without going back, never past the most; what is exhausted had
    them all."""
    for name, turns in history.turns.items():
        for before, after in pairwise(turns):
            if _redriven(history, before, after):
                continue
            if after.attempt <= before.attempt and not _may_not_count(history, before, after):
                yield f"{name}: attempt {after.attempt} after {before.attempt}"
            if after.attempt > before.attempt + 1 and not history.faulted(SERVER, 0, after.at):
                unseen = any(fault.at <= after.at for fault in history.faults)
                if not unseen:
                    yield f"{name}: attempt {after.attempt} right after {before.attempt}"
        over = [turn for turn in turns if rules.max_attempts and turn.attempt > rules.max_attempts]
        for turn in over:
            yield f"{name} had an attempt {turn.attempt}"
    for name, final in history.final.items():
        exhausted = final.outcome == "dead" and final.error == "exhausted"
        if exhausted and rules.max_attempts and final.attempt != rules.max_attempts:
            yield f"{name} is exhausted after {final.attempt} attempts"


def _may_not_count(history: Parts, before: Event, after: Event) -> bool:
    """Whether the earlier turn was given back, or may have been as its process was stopped."""
    if before.kind == "handle":
        end = history.end(before)
        return (end is not None and end.phase == "unknown") or history.faulted(
            before.process, before.at, after.at
        )
    return any(
        asked.token == before.token and asked.outcome == "back"
        for asked, _ in history.settles[before.id]
    )


def the_dead_have_a_reason(history: Parts, rules: Rules) -> Iterator[str]:
    """I8: dead letters have a reason; who rejected a message finds it dead, unless redriven."""
    for name, ended in history.final.items():
        if ended.outcome == "dead" and not ended.error:
            yield f"{name} is dead without a reason"
    for name, settles in history.settles.items():
        for asked, end in settles:
            rejected = asked.outcome == "dead" and end is not None and end.phase == "ok"
            final = history.final.get(name)
            if final is None:
                continue
            if rejected and not history.redriven[name] and final.outcome == "done":
                yield f"{name} was rejected and is done"
            acked = asked.outcome == "done" and end is not None and end.phase == "ok"
            if acked and final.outcome != "done":
                yield f"{name} was acked and is {final.outcome}"


def order_is_kept(history: Parts, rules: Rules) -> Iterator[str]:
    """I9: of one sender, mailbox and priority, what was accepted before another was sent comes
    first."""
    if not rules.ordered:
        return
    first = {name: turns[0] for name, turns in history.turns.items() if turns[0].attempt <= 1}
    lines = defaultdict(list)
    for asked, end in history.accepted:
        if end.id in first and not end.duplicate:
            lines[asked.sender, asked.mailbox, asked.rank].append((asked, end))
    for line, sends in lines.items():
        for (_, one), (asked, other) in pairwise(sorted(sends, key=lambda send: send[0].at)):
            if one.at < asked.at and _at(first[other.id]) < first[one.id].since:
                yield f"{line}: {other.id} came before {one.id}, which was accepted first"


def the_sums_are_right(history: Parts, rules: Rules) -> Iterator[str]:
    """I10: the store has what was accepted, what may have been, and nothing else."""
    accepted = {end.id for _, end in history.accepted}
    doubtful = sum(end is None or end.phase == "unknown" for _, end in history.sends)
    more = len(history.final) - len(accepted & history.final.keys())
    if more > doubtful:
        yield f"{more} messages more than were accepted, and only {doubtful} sends are in doubt"


def the_end_is_final(history: Parts, rules: Rules) -> Iterator[str]:
    """I11: after it was settled for good, or cancelled, a message is not delivered, unless
    redriven."""
    over = {event.id: event for event in history.of["cancel", "ok"]}
    for name, settles in history.settles.items():
        for asked, end in settles:
            if end and end.phase == "ok" and asked.outcome in ENDS_IT:
                over.setdefault(name, end)
    for name, end in over.items():
        for turn in history.turns[name]:
            asked_for = turn.since or turn.at
            if asked_for > end.at and not any(at <= turn.at for at in history.redriven[name]):
                yield f"{name} was delivered to {turn.process} after its end"


def calls_end_in_time(history: Parts, rules: Rules) -> Iterator[str]:
    """I15: no call outlives its deadline by more than the slack."""
    for events in history.of.values():
        for asked in events:
            if asked.phase == "invoke" and asked.deadline is not None:
                end = history.end(asked)
                if end is None:
                    continue
                late = end.at - asked.at - asked.deadline - rules.slack
                if late > 0 and not history.faulted(asked.process, asked.at, end.at):
                    yield f"a {asked.kind} of {asked.process} ended {late:.2f} s late"


def the_place_was_drained(history: Parts, rules: Rules) -> Iterator[str]:
    """I13: after the last fault all that waited was worked off, so that this is a verdict."""
    if not history.of["drained", "ok"]:
        yield "the history ends before everything was worked off"


Invariant = Callable[[Parts, Rules], Iterator[str]]
INVARIANTS: dict[str, Invariant] = {
    "I1 lost": nothing_is_lost,
    "I2 invented": nothing_is_invented,
    "I3 key": a_key_is_one_message,
    "I4 effect": effects_happen_once,
    "I4 repeat": repeats_are_explained,
    "I5 lease": one_lease_at_a_time,
    "I6 fence": a_stale_settle_fails,
    "I7 attempts": attempts_are_counted,
    "I8 dead": the_dead_have_a_reason,
    "I9 order": order_is_kept,
    "I10 sums": the_sums_are_right,
    "I11 final": the_end_is_final,
    "I13 drained": the_place_was_drained,
    "I15 deadline": calls_end_in_time,
}
