"""What the operations of one transaction share, and every way a message ends or lines up."""

from __future__ import annotations

import sqlite3
from collections.abc import Container
from functools import cache
from typing import Any

from msgspec import Struct

from ...lifecycle import DeadReason, State, keeping, parse_token
from ...store import FATE, MAIL, Box

PENDING, SCHEDULED, LEASED, DONE, DEAD, CANCELLED = range(6)
STATES: tuple[State, ...] = ("pending", "scheduled", "leased", "done", "dead", "cancelled")
READY, BLOCKED = 0, 1
PURGE = 500
"""Rows let go of in one transaction, at most: it must keep up, and not hold others up."""

GRANTS = 10_000
"""Leases that are remembered, at most."""


class Held(Struct):
    """What settling, or ending, a message needs to know of its row."""

    seq: int
    id: str
    mailbox: str
    state: int
    line: int | None
    start: float
    lease: float | None
    fence: int
    attempt: int
    last: int
    thread: str | None
    until: float | None
    error: str
    kept: int
    history: float
    retention: float
    history_max: int
    awaited: int


HELD = (
    "seq, id, mailbox, state, line, start, lease, fence, attempt, last, thread, until,"
    " error, key IS NOT NULL OR awaited > 0, history, retention, history_max, awaited"
)
"""The columns of a `Held`."""
_HELD = f"SELECT {HELD} FROM afk_delivery"
_BY_ID = f"{_HELD} WHERE space = ? AND id = ?"
ENDING = ("state", "settled", "reason", "error", "dead", "gone", "fade", "trim")
"""The columns that say how a message ended."""
_END = (
    "UPDATE afk_delivery SET line = NULL, due = NULL, expires = NULL, thread = NULL, fence = ?,"
    f" attempt = ?, {', '.join(f'{name} = ?' for name in ENDING)}"
    f" WHERE seq = ? AND fence = ? AND state < {DONE}"
)


@cache
def _updating(columns: tuple[str, ...]) -> str:
    """One text for the same columns: to put it together takes as long as SQLite does."""
    changes = ", ".join(f"{name} = ?" for name in columns)
    return f"UPDATE afk_delivery SET {changes} WHERE seq = ? AND state < {DONE}"


class Shelf(Struct):
    """A mailbox, and how many open messages it has by the end of this step."""

    box: Box
    open: int
    seen: float | None
    dirty: bool = False


class Step:
    """One transaction at one time. What is cached is written by `close`, before the commit.

    holds: the tokens whose leases are being renewed. grants: the rows of leases that this process
    was granted, as they were then; by the token.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        now: float,
        space: int,
        holds: Container[str],
        grants: dict[str, Held],
    ) -> None:
        self.holds = holds
        self.grants = grants
        self.db = db
        self.now = now
        self.space = space
        self.topics: list[str] = []
        self.next_due = float("inf")
        self.held: list[tuple[str, float, float]] = []
        self.released: list[str] = []
        self.died: list[str] = []
        self.written = False
        self._shelves: dict[str, Shelf | None] = {}
        self.accepted, self.ended = db.execute(
            "SELECT accepted, ended FROM afk_counter, afk_space WHERE space = ?", (space,)
        ).fetchone()
        self._counters = (self.accepted, self.ended)

    # -- mailboxes -----------------------------------------------------------------------

    def shelf(self, name: str) -> Shelf | None:
        """The mailbox, if it is registered."""
        if name not in self._shelves:
            row = self.db.execute(
                "SELECT ordered, capacity, max_bytes, open, seen FROM afk_mailbox"
                " WHERE space = ? AND name = ?",
                (self.space, name),
            ).fetchone()
            self._shelves[name] = row and Shelf(
                Box(name=name, ordered=bool(row[0]), capacity=row[1], max_bytes=row[2]),
                row[3],
                row[4],
            )
        return self._shelves[name]

    def forget_shelf(self, name: str) -> None:
        """The mailbox was just created or removed."""
        self._shelves.pop(name, None)

    def count(self, name: str, change: int) -> None:
        """So many open messages more."""
        shelf = self.shelf(name)
        if shelf is not None:
            shelf.open += change
            shelf.dirty = True

    def saved(self) -> Any:
        """The cached counts, to go back to when a turn is refused after all."""
        counts = {name: shelf.open for name, shelf in self._shelves.items() if shelf}
        marks = len(self.topics), len(self.died), len(self.held), len(self.released)
        return counts, self.accepted, self.ended, marks

    def restore(self, saved: Any) -> None:
        """Go back to `saved`."""
        counts, self.accepted, self.ended, marks = saved
        for name, shelf in list(self._shelves.items()):
            if name not in counts:
                del self._shelves[name]
            elif shelf is not None:
                shelf.open = counts[name]
        topics, died, held, released = marks
        del self.topics[topics:], self.died[died:], self.held[held:], self.released[released:]

    def obituaries(self) -> tuple[str, ...]:
        """Who died since this was last asked."""
        died = tuple(self.died)
        self.died.clear()
        return died

    # -- rows ----------------------------------------------------------------------------

    def find(self, message_id: str) -> Held | None:
        """The row of a message."""
        row = self.db.execute(_BY_ID, (self.space, message_id)).fetchone()
        return row and Held(*row)

    def holder(self, token: str) -> Held | None:
        """The row that this token still fences."""
        try:
            message_id, fence = parse_token(token)
        except ValueError:
            return None
        row = self.find(message_id)
        return row if row is not None and row.fence == fence and row.state < DONE else None

    def granted(self, token: str, row: Held) -> None:
        """Remember a lease of this process."""
        if len(self.grants) >= GRANTS:
            self.grants.clear()  # what was settled is not among them; for the rest there is a look
        self.grants[token] = row

    def done(self, token: str) -> bool:
        """End what was granted here and is still held, without a look of its own; False if it is
        not known to be so."""
        row = self.grants.pop(token, None)
        if row is None or not self.finish(row, DONE):
            return False
        self.released.append(token)
        return True

    def where(self, condition: str, *parameters: object) -> list[Held]:
        """The rows of this namespace that fit."""
        rows = self.db.execute(
            f"{_HELD} WHERE space = ? AND {condition}", (self.space, *parameters)
        )
        return [Held(*row) for row in rows.fetchall()]

    def line_up(self, row: Held, due: float, **changes: object) -> None:
        """An open message is ready, at its place, once due; or it ends, if it has nowhere to go."""
        reason = self._must_end(row)
        if reason is not None:
            attempt = changes.get("attempt")
            row.attempt = attempt if isinstance(attempt, int) else row.attempt
            self.finish(row, DEAD, reason, str(changes.get("error", "")))
        else:
            self._place(row, due, **changes)

    def _must_end(self, row: Held) -> DeadReason | None:
        if self.shelf(row.mailbox) is None:
            return "unregistered"
        return "expired" if row.until is not None and row.until <= self.now else None

    def _place(self, row: Held, due: float, **changes: object) -> None:
        self.next_due = min(self.next_due, row.until or due, max(due, self.now))
        if due > self.now:
            self.update(row, state=SCHEDULED, line=None, due=due, expires=row.until, **changes)
        else:
            self.topics.append(MAIL + row.mailbox)
            self.update(row, state=PENDING, line=READY, due=None, expires=row.until, **changes)

    def update(self, row: Held, **changes: object) -> None:
        """Set columns of a row, if it is still open."""
        self.db.execute(_updating(tuple(changes)), (*changes.values(), row.seq))

    def finish(
        self, row: Held, state: int, reason: DeadReason | None = None, error: str = ""
    ) -> bool:
        """Every way an open message ends comes through here, and its thread goes on. False, and
        nothing is changed, if it has ended, or its fence was raised."""
        if not self._end(row, state, reason, error):
            return False
        while row.thread is not None:
            heads = self.where(
                "mailbox = ? AND thread = ? ORDER BY seq LIMIT 1", row.mailbox, row.thread
            )
            if not heads or heads[0].line != BLOCKED:
                break
            must_end = self._must_end(heads[0])
            if must_end is None:
                self._place(heads[0], heads[0].start)
                break
            self._end(heads[0], DEAD, must_end, "")
        return True

    def _end(self, row: Held, state: int, reason: DeadReason | None, error: str) -> bool:
        columns = self.ending(row, state, reason, error or row.error)
        values = (row.fence + 1, row.attempt, *columns, row.seq, row.fence)
        if self.db.execute(_END, values).rowcount != 1:
            return False
        self.count(row.mailbox, -1)
        self.ended_as(row, state)
        return True

    def ended_as(self, row: Held, state: int) -> None:
        """Count an end, and let it be known."""
        self.ended += 1
        self.topics.append(FATE + row.id)
        if state == DEAD:
            self.died.append(row.id)

    def ending(
        self, row: Held, state: int, reason: DeadReason | None, error: str, *, answer: bool = False
    ) -> tuple[object, ...]:
        """The values of `ENDING` for a message that ends now, as the next one to be counted."""
        number = self.ended + 1
        keep = keeping(
            STATES[state],
            reason,
            self.now,
            history=row.history,
            retention=row.retention,
            keyed=bool(row.kept),
            answer=answer,
        )
        whole = keep is not None and keep.body == keep.row and (answer or state == DEAD)
        return (
            state,
            self.now,
            reason,
            error,
            number if state == DEAD else None,
            keep and keep.row,
            keep and keep.body,
            None if keep is None or whole else number + row.history_max,
        )

    def extend(self, row: Held, seconds: float) -> None:
        """Its lease now ends `seconds` from now; the delay that would follow it stays."""
        self.db.execute(
            "UPDATE afk_delivery SET due = coalesce(due - lease, 0) + :end, lease = :end,"
            " state = :leased, line = NULL, expires = max(:end, until) WHERE seq = :seq",
            {"end": self.now + seconds, "leased": LEASED, "seq": row.seq},
        )
        self.next_due = min(self.next_due, self.now + seconds)

    def renew(self, token: str, seconds: float) -> None:
        """Extend a held lease, if it is still held."""
        row = self.holder(token)
        if row is None or row.state != LEASED:
            self.released.append(token)
        elif (row.lease or 0.0) < self.now + seconds:  # else its holder has extended it further
            self.extend(row, seconds)

    # -- the end of the transaction ------------------------------------------------------

    def close(self) -> None:
        """Write what was cached."""
        accepted, ended = self._counters
        if self.accepted != accepted:
            self.db.execute("UPDATE afk_counter SET accepted = ?", (self.accepted,))
        if self.ended != ended:
            self.db.execute(
                "UPDATE afk_space SET ended = ? WHERE space = ?", (self.ended, self.space)
            )
        for name, shelf in self._shelves.items():
            if shelf is not None and shelf.dirty:
                self.db.execute(
                    "UPDATE afk_mailbox SET open = ?, seen = ? WHERE space = ? AND name = ?",
                    (shelf.open, shelf.seen, self.space, name),
                )

    def purge(self) -> None:
        """Rows whose time has come go; of keyed ones and requests the body goes first."""
        for condition, *limits in (
            ("fade <= ?", self.now),
            ("space = ? AND trim <= ?", self.space, self.ended),
        ):
            rows = self.db.execute(
                "SELECT seq, gone <= ? OR NOT (key IS NOT NULL OR awaited > 0)"
                f" FROM afk_delivery WHERE {condition} LIMIT {PURGE}",
                (self.now, *limits),
            ).fetchall()
            if rows:
                self.db.executemany(
                    "DELETE FROM afk_delivery WHERE seq = ?", [(seq,) for seq, gone in rows if gone]
                )
                self.db.executemany(
                    "UPDATE afk_delivery SET body = NULL, fade = gone, trim = NULL WHERE seq = ?",
                    [(seq,) for seq, gone in rows if not gone],
                )
