"""The rules of a store as a plain object: no clock, no event loop, nothing awaited."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from ...errors import UnknownAgentError
from ...lifecycle import (
    FINAL,
    Again,
    DeadReason,
    Done,
    Extend,
    Outcome,
    State,
    keeping,
    parse_token,
    spread,
    token_of,
)
from ...records import Record, fingerprint
from ...store import (
    FATE,
    MAIL,
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
from .plan import Plan
from .rows import Entry, Shelf
from .timers import Timers
from .views import mailbox_stats, select


class Ledger:
    """Deliveries and their rules, as a plain object: told the time, it changes and answers.

    news: topics that those who wait should hear of, until someone takes them.
    """

    def __init__(self) -> None:
        self.news: list[str] = []
        self.shelves: dict[str, Shelf] = {}
        self.version = 0
        self.rows: dict[str, Entry] = {}
        self.keys: dict[tuple[str, str, str], Entry] = {}
        self._dead: OrderedDict[str, Entry] = OrderedDict()
        self._due: Timers[Entry] = Timers()
        self._expiry: Timers[Entry] = Timers()
        self._fading: Timers[Entry] = Timers()
        self._trims: Timers[Entry] = Timers()
        self._accepted = 0
        self._ended = 0
        self._died: list[str] = []
        self._leased_out: dict[str, list[Entry]] = {}

    # -- delivering ----------------------------------------------------------------------

    def take(self, turn: Turn, now: float) -> Verdict:
        """One turn, all or nothing."""
        self._forget(now)
        if turn.roster is not None and turn.roster != self.version:
            return Verdict(Refusal("roster"), died=self._obituaries())
        held = None
        if turn.token is not None:
            held = self._held(turn.token)
            if held is None:
                return Verdict(Refusal("lease_lost"), died=self._obituaries())
        plan = Plan(self, now)
        for send in turn.sends:
            refusal = plan.add(send)
            if refusal is not None:
                return Verdict(refusal, died=self._obituaries())
        if held is not None and turn.outcome is not None:
            self._settle(held, turn.outcome, now)
        for kind, send in plan.steps:
            self._store(kind, send, now)
        return Verdict(None, tuple(plan.accepted), self._obituaries())

    def _held(self, token: str) -> Entry | None:
        try:
            message_id, fence = parse_token(token)
        except ValueError:
            return None
        row = self.rows.get(message_id)
        if row is None or row.fence != fence or row.settled_fence == fence or row.state in FINAL:
            return None
        return row

    def _settle(self, row: Entry, outcome: Outcome, now: float) -> None:
        if isinstance(outcome, Extend):
            self._lease(row, now + outcome.seconds)
            return
        row.settled_fence = row.fence
        if isinstance(outcome, Done):
            self._finish(row, "done", now)
        elif isinstance(outcome, Again):
            if not outcome.counts:
                row.attempt -= 1
            row.error = outcome.error or row.error
            self._line_up(row, now + outcome.delay, now)
        else:
            self._finish(row, "dead", now, outcome.reason, outcome.error)

    def _line_up(self, row: Entry, due: float, now: float) -> None:
        """An open message becomes ready, at its place, once due."""
        row.blocked = False
        row.due = due
        shelf = self.shelves.get(row.mailbox)
        if shelf is None:
            self._finish(row, "dead", now, "unregistered", row.error)
        elif row.expires is not None and row.expires <= now:
            self._finish(row, "dead", now, "expired", row.error)
        elif due > now:
            row.state = "scheduled"
            self._due.set(row, due)
        else:
            self._due.drop(row)
            row.state = "pending"
            shelf.put_back(row)
            self.news.append(MAIL + row.mailbox)

    def _lease(self, row: Entry, until: float) -> None:
        row.state = "leased"
        row.lease_end = until
        row.due = until + row.backoff
        self._due.set(row, row.due)

    def _finish(
        self,
        row: Entry,
        state: State,
        now: float,
        reason: DeadReason | None = None,
        error: str = "",
    ) -> None:
        """Every way a message ends comes through here."""
        self._due.drop(row)
        self._expiry.drop(row)
        shelf = self.shelves.get(row.mailbox)
        if shelf is not None and row.state == "pending" and not row.blocked:
            shelf.drop()
        row.state, row.settled_at, row.reason, row.error = state, now, reason, error or row.error
        if shelf is not None and row.counted:
            head = shelf.leave(row)
            if head is not None:
                self._line_up(head, head.due, now)
        self._end(row, now)

    def _end(self, row: Entry, now: float) -> None:
        self._ended += 1
        row.ended = self._ended
        self.news.append(FATE + row.id)
        if row.state == "dead":
            self._dead[row.id] = row
            self._died.append(row.id)
        keep = keeping(
            row.state,
            row.reason,
            now,
            history=row.history,
            retention=row.retention,
            keyed=row.kept,
            answer=row.is_answer,
        )
        if keep is not None:
            row.row_until = keep.row
            self._fading.set(row, keep.body)
            if row.state != "dead" and not row.is_answer:
                self._trims.set(row, row.ended + row.history_max)
        self._forget(now)

    def _forget(self, now: float) -> None:
        """Let go of what history and retention no longer cover."""
        for row in self._trims.due(self._ended):
            self._drop_body(row)
        for row in self._fading.due(now):
            self._drop_body(row)
            if row.row_until <= now:
                self._drop_row(row)
            else:
                self._fading.set(row, row.row_until)

    def _drop_body(self, row: Entry) -> None:
        self._trims.drop(row)
        if row.body is None:
            return
        if row.kept:
            row.digest = fingerprint(row.body)
            row.body = None
        else:
            self._drop_row(row)

    def _drop_row(self, row: Entry) -> None:
        self._fading.drop(row)
        self._trims.drop(row)
        self._dead.pop(row.id, None)
        self.rows.pop(row.id, None)
        if row.key is not None:
            self.keys.pop((row.mailbox, row.sender, row.key), None)

    def _obituaries(self) -> tuple[str, ...]:
        if not self._died:
            return ()
        died, self._died = tuple(self._died), []
        return died

    def _store(self, kind: Literal["mail", "answer", "dead"], send: Send, now: float) -> None:
        """Accept a message, as the plan decided."""
        self._accepted += 1
        row = self.rows[send.id] = Entry(send, self._accepted, now)
        if send.key is not None:
            self.keys[send.mailbox, send.sender, send.key] = row
        if kind == "mail":
            self._admit(row, now)
        elif send.dead is not None and kind == "dead":
            row.state, row.settled_at = "dead", now
            row.reason, row.error = send.dead
            self._end(row, now)
        elif send.answers is not None:
            self._attach(row, self.rows[send.answers], now)

    def _admit(self, row: Entry, now: float) -> None:
        shelf = self.shelves[row.mailbox]
        if row.expires is not None:
            self._expiry.set(row, row.expires)
        if not shelf.enter(row):
            row.blocked = True
            row.state = "pending" if row.due <= now else "scheduled"
        elif row.due > now:
            row.state = "scheduled"
            self._due.set(row, row.due)
        else:
            shelf.add(row)
            self.news.append(MAIL + row.mailbox)

    def _attach(self, row: Entry, request: Entry, now: float) -> None:
        """An answer is done at once, and its request's result."""
        row.is_answer = True
        row.state, row.settled_at = "done", now
        request.answer = row
        if request.state in FINAL:  # the result must be found for as long as it is kept
            request.row_until = max(request.row_until, now + row.retention)
        self._end(row, now)
        self.news.append(FATE + request.id)

    def claim(self, claim: Claim, now: float) -> Batch:
        """Let time pass, then lease the first ready messages."""
        self.pass_time(now)
        if claim.limit == 0:
            return Batch((), self._obituaries())
        shelf = self.shelves.get(claim.mailbox)
        if shelf is None:
            raise UnknownAgentError(claim.mailbox)
        shelf.last_seen = now
        leased: list[Leased] = []
        while len(leased) < claim.limit and (row := shelf.pop()) is not None:
            leased.append(self._grant(row, claim, len(leased), now))
        return Batch(tuple(leased), self._obituaries())

    def _grant(self, row: Entry, claim: Claim, index: int, now: float) -> Leased:
        row.attempt += 1
        row.fence += 1
        row.leased_at = row.leased_at or now
        body = row.body
        assert body is not None  # open messages keep theirs
        take = claim.take and isinstance(body, Record)
        if take:
            row.settled_fence = row.fence
            self._finish(row, "done", now)
        else:
            row.last = row.attempt >= claim.policy.max_attempts
            row.backoff = (
                0.0 if row.last else claim.policy.delay(row.attempt, spread(claim.chance, index))
            )
            self._lease(row, now + claim.lease)
        return Leased(
            token=None if take else token_of(row.id, row.fence),
            id=row.id,
            mailbox=row.mailbox,
            body=body,
            attempt=row.attempt,
            redrives=row.redrives,
        )

    def pass_time(self, now: float) -> None:
        """Bring about what only time does: leases end, delays are over, ttls run out."""
        for row in self._due.due(now):
            if row.state == "leased" and row.last:
                self._finish(row, "dead", now, "exhausted", row.error or "the lease ended")
            else:
                self._line_up(row, row.due, now)
        for row in self._expiry.due(now):
            if row.state != "leased":  # else when it comes back
                self._finish(row, "dead", now, "expired")
        self._forget(now)

    # -- the directory -------------------------------------------------------------------

    def bind(self, box: Box) -> Box:
        """Create the mailbox, or return it as it was created."""
        shelf = self.shelves.get(box.name)
        if shelf is None:
            shelf = self.shelves[box.name] = Shelf(box)
            self.version += 1
            for row in self._leased_out.pop(box.name, ()):
                if row.state == "leased":  # since it was last registered: it comes back to it
                    shelf.enter(row)
        return shelf.box

    def unbind(self, name: str, now: float) -> tuple[str, ...]:
        """Refuse new mail, then bury what waits."""
        if self.shelves.pop(name, None) is not None:
            self.version += 1
            left = [row for row in self.rows.values() if row.mailbox == name and row.counted]
            for row in left:
                row.counted = False  # on a shelf that is gone
                if _waits(row, now):
                    self._finish(row, "dead", now, "unregistered")
            self._leased_out[name] = [row for row in left if row.state == "leased"]
        return self._obituaries()

    def roster(self) -> Roster:
        """The directory now."""
        return Roster(self.version, {name: shelf.box for name, shelf in self.shelves.items()})

    # -- inspecting ----------------------------------------------------------------------

    def counts(self, mailbox: str | None, now: float) -> dict[str, MailboxStats]:
        """The counts of every registered mailbox, or of this one."""
        seen = {
            name: shelf.last_seen
            for name, shelf in self.shelves.items()
            if mailbox is None or name == mailbox
        }
        return mailbox_stats(self.rows.values(), seen, now)

    def browse(self, query: Query, now: float) -> list[Row]:
        """Rows as they are."""
        self._forget(now)
        rows = self.rows
        if query.ids is not None:
            found = [rows[i] for i in query.ids if i in rows]
        else:
            found = list((self._dead if query.order == "ended" else rows).values())
        return select(found, query, now)

    def amend(
        self,
        verb: Literal["cancel", "redrive", "discard"],
        ids: tuple[str, ...],
        agent: str | None,
        now: float,
    ) -> int:
        """Change these messages, or all dead ones of the agent."""
        chosen = ids or tuple(i for i, row in self._dead.items() if row.mailbox == agent)
        change = {"cancel": self._cancel, "redrive": self._redrive, "discard": self._discard}[verb]
        rows = [self.rows[i] for i in chosen if i in self.rows]
        return sum(change(row, now) for row in rows if agent is None or row.mailbox == agent)

    def _cancel(self, row: Entry, now: float) -> bool:
        waits = _waits(row, now)
        if waits:
            self._finish(row, "cancelled", now)
        return waits

    def _redrive(self, row: Entry, now: float) -> bool:
        if row.state != "dead" or row.mailbox not in self.shelves:
            return False
        del self._dead[row.id]
        self._fading.drop(row)
        self._accepted += 1
        row.place = self._accepted
        row.state, row.settled_at, row.due = "pending", None, now
        row.attempt, row.redrives = 0, row.redrives + 1
        row.fence += 1
        row.expires = None if row.ttl is None else now + row.ttl
        self._admit(row, now)
        return True

    def _discard(self, row: Entry, now: float) -> bool:
        if row.state != "dead":
            return False
        del self._dead[row.id]
        row.state = "cancelled"
        row.digest, row.body = (fingerprint(row.body) if row.kept and row.body else None), None
        self._end(row, now)
        return True

    def next_due(self) -> float:
        """When time next brings something about; infinity if nothing waits for it."""
        times = (self._due.next(), self._expiry.next())
        return min((at for at in times if at is not None), default=float("inf"))


def _waits(row: Entry, now: float) -> bool:
    """Open, and in nobody's hands: a lease that ended holds nothing."""
    return row.state in ("pending", "scheduled") or (row.state == "leased" and row.lease_end <= now)
