"""The course of an open message: every way it lines up, is leased, or ends."""

from __future__ import annotations

from ...lifecycle import DeadReason, State
from ...store import FATE, MAIL
from .books import Books
from .rows import OUT, Entry, Shelf
from .timers import Timers


class Course:
    """Mailboxes, the messages in them, and what time does to these.

    news: topics that those who wait should hear of, until someone takes them. untold: who died and
    was in no answer yet.
    """

    def __init__(self) -> None:
        self.news: list[str] = []
        self.shelves: dict[str, Shelf] = {}
        self.books = Books()
        self.due = Timers()
        self.expiry = Timers()
        self.untold: list[str] = []

    def pass_time(self, now: float, spare: Entry | None = None) -> None:
        """Bring about what only time does: leases end, delays are over, ttls run out.

        spare: not of this one, which is about to be settled.
        """
        if self.due.first <= now:
            for row in self.due.due(now, spare):
                if row.state == "leased" and row.past.last:
                    error = row.past.error or "the lease ended"
                    self._finish(row, "dead", now, "exhausted", error)
                else:
                    self._line_up(row, row.due, now)
        if self.expiry.first <= now:
            for row in self.expiry.due(now, spare):
                if row.state != "leased":  # else when it comes back
                    self._finish(row, "dead", now, "expired")

    @property
    def not_before(self) -> float:
        """Before this, time brings nothing about: what next_due says or earlier, and cheaper."""
        return min(self.due.first, self.expiry.first)

    def next_due(self) -> float:
        """When time next brings something about; infinity if nothing waits for it."""
        return min(self.due.next(), self.expiry.next())

    def _line_up(self, row: Entry, due: float, now: float) -> None:
        """An open message is ready, at its place, once due. If it has nowhere to go it ends, and
        what waited behind it is next."""
        head: Entry | None = row
        while head is not None:  # a loop: all of a long thread may end at once
            head.blocked = False
            shelf = self.shelves.get(head.mailbox)
            if shelf is None:
                head = self._close(head, "dead", now, "unregistered")
            elif head.expires is not None and head.expires <= now:
                head = self._close(head, "dead", now, "expired")
            else:
                self._place(head, shelf, due, now)
                return
            due = head.due if head is not None else 0.0

    def _place(self, row: Entry, shelf: Shelf, due: float, now: float) -> None:
        row.due = due
        if due > now:
            row.state = "scheduled"
            shelf.withdraw(row)
            self.due.set(row, due)
        else:
            row.state = "pending"
            self.due.drop(row)
            shelf.put_back(row)
            self.news.append(MAIL + row.mailbox)

    def _lease(self, row: Entry, until: float) -> None:
        """What is held stays held: an earlier end would be put off by the next renewal."""
        shelf = self.shelves.get(row.mailbox)
        if shelf is not None:
            shelf.withdraw(row)
        row.state = "leased"
        past = row.lived()
        past.lease_end = max(until, past.held_until)
        row.due = past.lease_end + past.backoff
        if row.expires is not None:  # past its ttl there is nothing to wait for
            row.due = min(row.due, max(past.lease_end, row.expires))
        self.due.set(row, row.due)

    def _finish(
        self,
        row: Entry,
        state: State,
        now: float,
        reason: DeadReason | None = None,
        error: str = "",
    ) -> None:
        """An open message ends, and its thread goes on."""
        head = self._close(row, state, now, reason, error)
        if head is not None:
            self._line_up(head, head.due, now)

    def _close(
        self,
        row: Entry,
        state: State,
        now: float,
        reason: DeadReason | None = None,
        error: str = "",
    ) -> Entry | None:
        """Every way an open message ends comes through here; who is to line up for that."""
        if row.state != "pending":
            self.due.drop(row)
        if row.expires is not None:
            self.expiry.drop(row)
        shelf = self.shelves.get(row.mailbox)
        head = shelf.leave(row) if shelf is not None else None
        if shelf is None:
            row.line = OUT
        past = row.lived()
        past.fence += 1
        row.state, row.blocked, past.settled_at = state, False, now
        if reason is not None:
            past.reason, past.error = reason, error or past.error
        self._end(row, now)
        return head

    def _end(self, row: Entry, now: float) -> None:
        self.news.append(FATE + row.id)
        if row.state == "dead":
            self.untold.append(row.id)
        self.books.end(row, now)

    def _obituaries(self) -> tuple[str, ...]:
        died, self.untold = tuple(self.untold), []
        return died
