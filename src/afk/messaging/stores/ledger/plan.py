"""What a turn would store, decided before anything is: all of it, or a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from ...lifecycle import Again, Dead, DeadReason, Done, Outcome, room
from ...records import fingerprint, wire
from ...store import Accepted, Refusal, Send
from .rows import Entry

if TYPE_CHECKING:
    from .ledger import Ledger

Step = tuple[Literal["mail", "answer", "dead"], Send]


class Plan:
    """The sends of one turn, checked one by one against the ledger and each other."""

    def __init__(
        self, ledger: Ledger, now: float, held: Entry | None = None, outcome: Outcome | None = None
    ) -> None:
        self._ledger = ledger
        self._now = now
        self._held = held
        self._added: dict[str, int] = {}
        self._planned: dict[str, Send] = {}
        self._keyed: dict[tuple[str, str, str | None], Send] = {}
        self._answered: set[str] = set()
        self.steps: list[Step] = []
        self.accepted: list[Accepted] = []
        if held is not None and _ends(held, outcome, now):
            self._added[held.mailbox] = -1  # the room that the outcome frees

    def add(self, send: Send) -> Refusal | None:
        """Plan one send; a Refusal ends the turn."""
        known = self._known(send)
        if known is None and send.answers is not None:
            known = self._late_answer(send, send.answers)
        if known is None:
            known = self._place(send) or Accepted(send.id)
        if isinstance(known, Refusal):
            return known
        self.accepted.append(known)
        return None

    def _late_answer(self, send: Send, answers: str) -> Accepted | None:
        """An answer that nobody waits for any more, or that is the second one."""
        request = self._ledger.books.rows.get(answers)
        if request is None:
            late = send.awaited
        else:
            late = request.asks and (
                request.past.answer is not None
                or request.state == "cancelled"
                or request.id in self._answered
            )
        return Accepted(send.id, ignored=True) if late else None

    def _place(self, send: Send) -> Refusal | None:
        """Where it goes: to its request, to the dead letters, or into the mailbox."""
        kind: Literal["mail", "answer", "dead"] = "mail"
        if send.answers is not None and self._asks(send.answers):
            self._answered.add(send.answers)
            kind = "answer"
        elif send.dead is not None:
            kind = "dead"
        elif (refusal := self._no_place(send)) is None:
            self._added[send.mailbox] = self._added.get(send.mailbox, 0) + 1
        elif send.alone:
            kind = "dead"
            copy = send.answers is None  # of a broadcast; else an answer
            full = copy and refusal.kind == "full"
            reason: DeadReason = "full" if full else "undeliverable"
            send = replace(send, dead=(reason, refusal.kind))
        else:
            return refusal
        self._planned[send.id] = send
        if send.key is not None:
            self._keyed[send.mailbox, send.sender, send.key] = send
        self.steps.append((kind, send))
        return None

    def _asks(self, request_id: str) -> bool:
        request = self._ledger.books.rows.get(request_id)
        return request is not None and request.asks

    def _known(self, send: Send) -> Accepted | Refusal | None:
        """What the ledger, or this turn, has already under the key or the id."""
        books = self._ledger.books
        if send.key is None and send.id not in books.rows and send.id not in self._planned:
            return None
        name = send.mailbox, send.sender, send.key
        first: Entry | Send | None = None
        if send.key is not None:
            first = self._keyed.get(name) or books.keys.get(name)
        if first is None:
            first = self._planned.get(send.id) or books.rows.get(send.id)
            if first is None:
                return None
            if (first.mailbox, first.sender, first.key) != name:
                return Refusal("conflict", send.mailbox, first.id)
        if send.compare and _digest(first) != fingerprint(send.body):
            return Refusal("conflict", send.mailbox, first.id)
        return Accepted(first.id, duplicate=True)

    def _no_place(self, send: Send) -> Refusal | None:
        shelf = self._ledger.shelves.get(send.mailbox)
        if shelf is None:
            return Refusal("unknown", send.mailbox, send.id)
        box = shelf.box
        if len(wire(send.body)) > box.max_bytes:
            return Refusal("too_large", send.mailbox, send.id, box.max_bytes)
        most = room(box.capacity, send.rank == 0)
        added = self._added.get(send.mailbox, 0)
        if len(shelf.open) + added >= most:
            self._ledger.pass_time(self._now, self._held)
            if len(shelf.open) + added >= most:
                return Refusal("full", send.mailbox, send.id, box.capacity)
        return None


def _digest(first: Entry | Send) -> bytes | None:
    if first.body is not None:
        return fingerprint(first.body)
    return first.past.digest if isinstance(first, Entry) else None


def _ends(held: Entry, outcome: Outcome | None, now: float) -> bool:
    expired = held.expires is not None and held.expires <= now
    return isinstance(outcome, Done | Dead) or (isinstance(outcome, Again) and expired)
