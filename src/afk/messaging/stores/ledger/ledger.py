"""The rules of a store as a plain object: no clock, no event loop, nothing awaited."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Literal

from ...errors import UnknownAgentError
from ...lifecycle import (
    FINAL,
    Again,
    Done,
    Extend,
    Outcome,
    parse_token,
    spread,
    token_of,
)
from ...records import Record
from ...store import (
    FATE,
    MAIL,
    Accepted,
    Batch,
    Box,
    Claim,
    Leased,
    MailboxStats,
    Query,
    Refusal,
    Roster,
    Row,
    Send,
    Turn,
    Verdict,
)
from .course import Course
from .plan import Plan, Step
from .rows import Entry, Shelf, entry
from .views import as_delivered, mailbox_stats, select


class Ledger(Course):
    """Deliveries and their rules, as a plain object: told the time, it changes and answers."""

    def __init__(self) -> None:
        super().__init__()
        self.version = 0
        self.accepted = 0
        self.leased_out: dict[str, list[Entry]] = {}

    # -- delivering ----------------------------------------------------------------------

    def take(self, turn: Turn, now: float) -> Verdict:
        """One turn, all or nothing."""
        if turn.sends:  # a key past its time is free again
            self.books.forget(now)
        if turn.roster is not None and turn.roster != self.version:
            return Verdict(Refusal("roster"), died=self._obituaries())
        held = None
        if turn.token is not None:
            held = self.held(turn.token)
            if held is None:
                return Verdict(Refusal("lease_lost"), died=self._obituaries())
        steps: Sequence[Step] = ()
        accepted: tuple[Accepted, ...] = ()
        if turn.sends:
            plan = Plan(self, now, held, turn.outcome)
            for send in turn.sends:
                refusal = plan.add(send)
                if refusal is not None:
                    return Verdict(refusal, died=self._obituaries())
            steps, accepted = plan.steps, tuple(plan.accepted)
        if held is not None and turn.outcome is not None:
            self._settle(held, turn.outcome, now)
        for kind, send in steps:
            self._store(kind, send, now)
        self.books.forget(now)  # not before: an answer must find the request it settles
        return Verdict(None, accepted, self._obituaries() if self.untold else ())

    def held(self, token: str) -> Entry | None:
        """The open message of a token, unless another has had it since."""
        try:
            message_id, fence = parse_token(token)
        except ValueError:
            return None
        row = self.books.rows.get(message_id)
        if row is None or row.past.fence != fence or row.state in FINAL:
            return None
        return row

    def _settle(self, row: Entry, outcome: Outcome, now: float) -> None:
        if isinstance(outcome, Done):
            self._finish(row, "done", now)
        elif isinstance(outcome, Extend):
            if outcome.hold is not None:
                row.lived().held_until = now + outcome.hold
            self._lease(row, now + outcome.seconds)
        elif isinstance(outcome, Again):
            past = row.lived()
            past.fence += 1
            if not outcome.counts:
                past.attempt -= 1
            past.error = outcome.error or past.error
            self._line_up(row, now + outcome.delay, now)
        else:
            self._finish(row, "dead", now, outcome.reason, outcome.error)

    def _store(self, kind: Literal["mail", "answer", "dead"], send: Send, now: float) -> None:
        """Accept a message, as the plan decided."""
        self.accepted += 1
        row = entry(send, self.accepted, now)
        self.books.add(row)
        if kind == "mail":
            self._admit(row, now)
        elif send.dead is not None and kind == "dead":
            row.state, past = "dead", row.lived()
            past.settled_at = now
            past.reason, past.error = send.dead
            self._end(row, now)
        elif send.answers is not None:
            self._attach(row, self.books.rows[send.answers], now)

    def _admit(self, row: Entry, now: float) -> None:
        shelf = self.shelves[row.mailbox]
        if row.expires is not None:
            self.expiry.set(row, row.expires)
        later = row.due > now
        row.state = "scheduled" if later else "pending"
        if not shelf.enter(row):
            row.blocked = True
        elif later:
            self.due.set(row, row.due)
        else:
            shelf.add(row)
            self.news.append(MAIL + row.mailbox)

    def _attach(self, row: Entry, request: Entry, now: float) -> None:
        """An answer is done at once, and its request's result."""
        row.is_answer = True
        row.retention = max(row.retention, request.retention)  # as long as who asked counts on it
        row.state, row.lived().settled_at = "done", now
        request.lived().answer = row
        if request.state in FINAL:  # the result must be found for as long as it is kept
            self.books.keep(request, now + row.retention)
        self._end(row, now)
        self.news.append(FATE + request.id)

    def claim(self, claim: Claim, now: float) -> Batch:
        """Let time pass, then lease the first ready messages."""
        shelf = self.shelves.get(claim.mailbox)
        if claim.limit and shelf is None:  # before anything is changed
            raise UnknownAgentError(claim.mailbox)
        self.pass_time(now)
        if claim.limit == 0 or shelf is None:
            return Batch((), self._obituaries())
        shelf.last_seen = now
        leased: list[Leased] = []
        while len(leased) < claim.limit and (row := shelf.pop()) is not None:
            leased.append(self._grant(row, claim, len(leased), now))
        self.books.forget(now)
        return Batch(tuple(leased), self._obituaries() if self.untold else ())

    def _grant(self, row: Entry, claim: Claim, index: int, now: float) -> Leased:
        past = row.lived()
        past.attempt += 1
        past.fence += 1
        past.leased_at = past.leased_at or now
        body = row.body
        assert body is not None  # open messages keep theirs
        take = claim.take and isinstance(body, Record)
        if take:
            self._finish(row, "done", now)
        else:
            past.held_until = now + (claim.hold or 0.0)
            past.last = past.attempt >= claim.policy.max_attempts
            delay = claim.policy.delay(past.attempt, spread(claim.chance, index))
            # In whole ms: another machine's power function may differ in the last bit.
            past.backoff = 0.0 if past.last else round(delay, 3)
            self._lease(row, now + claim.lease)
        return Leased(
            token=None if take else token_of(row.id, past.fence),
            id=row.id,
            mailbox=row.mailbox,
            body=body,
            attempt=past.attempt,
            redrives=past.redrives,
        )

    # -- the directory -------------------------------------------------------------------

    def bind(self, box: Box) -> Box:
        """Create the mailbox, or return it as it was created."""
        shelf = self.shelves.get(box.name)
        if shelf is None:
            shelf = self.shelves[box.name] = Shelf(box)
            self.version += 1
            for row in self.leased_out.pop(box.name, ()):
                if row.state == "leased":  # since it was last registered: it comes back to it
                    shelf.restore(row)
        return shelf.box

    def unbind(self, name: str, now: float) -> tuple[str, ...]:
        """Refuse new mail, then bury what waits."""
        shelf = self.shelves.pop(name, None)
        if shelf is not None:
            self.version += 1
            for row in list(shelf.open.values()):
                if _waits(row, now):
                    self._finish(row, "dead", now, "unregistered")
                else:
                    self.leased_out.setdefault(name, []).append(row)
        return self._obituaries()

    def roster(self) -> Roster:
        """The directory now."""
        return Roster(self.version, {name: shelf.box for name, shelf in self.shelves.items()})

    # -- inspecting ----------------------------------------------------------------------

    def counts(self, mailbox: str | None, now: float) -> dict[str, MailboxStats]:
        """The counts of every registered mailbox, or of this one."""
        chosen = {
            name: shelf
            for name, shelf in self.shelves.items()
            if mailbox is None or name == mailbox
        }
        shelves = [shelf.open.values() for shelf in chosen.values()]
        seen = {name: shelf.last_seen for name, shelf in chosen.items()}
        return mailbox_stats(chain(*shelves, self.books.dead.values()), seen, now)

    def browse(self, query: Query, now: float) -> list[Row]:
        """Rows as they are."""
        self.books.forget(now)
        return select(self._in_order(query, now), query, now)

    def _in_order(self, query: Query, now: float) -> Iterable[Entry]:
        """Where to look, in the query's order: no more rows than it takes."""
        rows = self.books.rows
        if query.ids is not None:
            return [rows[i] for i in query.ids if i in rows]
        if query.order == "ended":
            return self.books.dead.values()
        if query.order == "delivery" and query.mailbox is not None:
            shelf = self.shelves.get(query.mailbox)
            if shelf is None:
                return ()
            settled = not shelf.box.ordered and self.next_due() > now
            return shelf.in_line() if settled else as_delivered(shelf.open.values(), now)
        return rows.values() if query.chain is None else self.books.chain(query.chain)

    def amend(
        self,
        verb: Literal["cancel", "redrive", "discard"],
        ids: tuple[str, ...],
        agent: str | None,
        now: float,
    ) -> int:
        """Change these messages, or all dead ones of the agent."""
        self.books.forget(now)
        known, dead = self.books.rows, self.books.dead
        chosen = ids or tuple(i for i, row in dead.items() if row.mailbox == agent)
        change = {"cancel": self._cancel, "redrive": self._redrive, "discard": self._discard}[verb]
        rows = [known[i] for i in chosen if i in known]
        return sum(change(row, now) for row in rows if agent is None or row.mailbox == agent)

    def _cancel(self, row: Entry, now: float) -> bool:
        waits = _waits(row, now)
        if waits:
            self._finish(row, "cancelled", now)
        return waits

    def _redrive(self, row: Entry, now: float) -> bool:
        if row.state != "dead" or row.mailbox not in self.shelves:
            return False
        self.accepted += 1
        row.place = self.accepted
        self.books.reopen(row)
        past = row.lived()
        past.settled_at, past.reason, row.due = None, None, 0.0
        past.attempt, past.redrives = 0, past.redrives + 1
        past.fence += 1
        row.expires = None if row.ttl is None else now + row.ttl
        self._admit(row, now)
        return True

    def _discard(self, row: Entry, now: float) -> bool:
        if row.state != "dead":
            return False
        self.books.let_go(row)
        past = row.lived()
        row.state, past.settled_at, past.reason = "cancelled", now, None
        self._end(row, now)
        return True


def _waits(row: Entry, now: float) -> bool:
    """Open, and in nobody's hands: a lease that ended holds nothing."""
    return row.state in ("pending", "scheduled") or (
        row.state == "leased" and row.past.lease_end <= now
    )
