"""What a turn would store, decided before anything is: all of it, or a refusal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from ...lifecycle import DeadReason, room
from ...records import fingerprint, wire
from ...store import Accepted, Refusal, Send
from .rows import Entry

if TYPE_CHECKING:
    from .ledger import Ledger

Step = tuple[Literal["mail", "answer", "dead"], Send]


class Plan:
    """The sends of one turn, checked one by one against the ledger and each other."""

    def __init__(self, ledger: Ledger, now: float) -> None:
        self._ledger = ledger
        self._now = now
        self._added: Counter[str] = Counter()
        self._planned: dict[str, Send] = {}
        self.steps: list[Step] = []
        self.accepted: list[Accepted] = []

    def add(self, send: Send) -> Refusal | None:
        """Plan one send; a Refusal ends the turn."""
        known = self._known(send) or self._late_answer(send)
        if isinstance(known, Refusal):
            return known
        if known is None:
            refusal = self._place(send)
            if refusal is not None:
                return refusal
        self.accepted.append(known or Accepted(send.id))
        return None

    def _late_answer(self, send: Send) -> Accepted | None:
        """An answer that nobody waits for any more, or that is the second one."""
        if send.answers is None:
            return None
        request = self._ledger.rows.get(send.answers)
        if request is None:
            late = send.awaited
        else:
            late = request.awaited and (request.answer is not None or request.state == "cancelled")
        return Accepted(send.id, ignored=True) if late else None

    def _place(self, send: Send) -> Refusal | None:
        """Where it goes: to its request, to the dead letters, or into the mailbox."""
        request = self._ledger.rows.get(send.answers) if send.answers is not None else None
        if request is not None and request.awaited:
            self._step("answer", send)
        elif send.dead is not None:
            self._step("dead", send)
        else:
            refusal = self._no_place(send)
            if refusal is None:
                self._added[send.mailbox] += 1
                self._step("mail", send)
            elif send.alone:
                copy = send.answers is None  # of a broadcast; else an answer
                full = copy and refusal.kind == "full"
                reason: DeadReason = "full" if full else "undeliverable"
                self._step("dead", replace(send, dead=(reason, refusal.kind)))
            else:
                return refusal
        return None

    def _step(self, kind: Literal["mail", "answer", "dead"], send: Send) -> None:
        self._planned[send.id] = send
        self.steps.append((kind, send))

    def _known(self, send: Send) -> Accepted | Refusal | None:
        if send.id in self._planned:
            return Refusal("conflict", send.mailbox, send.id)
        row = None
        if send.key is not None:
            for planned in self._planned.values():
                if (planned.mailbox, planned.sender, planned.key) == (
                    send.mailbox,
                    send.sender,
                    send.key,
                ):
                    same = not send.compare or fingerprint(planned.body) == fingerprint(send.body)
                    return (
                        Accepted(planned.id, duplicate=True)
                        if same
                        else Refusal("conflict", send.mailbox, planned.id)
                    )
            row = self._ledger.keys.get((send.mailbox, send.sender, send.key))
        if row is None:
            row = self._ledger.rows.get(send.id)
            if row is None:
                return None
            if (row.mailbox, row.sender, row.key) != (send.mailbox, send.sender, send.key):
                return Refusal("conflict", send.mailbox, row.id)
        if send.compare and _digest(row) != fingerprint(send.body):
            return Refusal("conflict", send.mailbox, row.id)
        return Accepted(row.id, duplicate=True)

    def _no_place(self, send: Send) -> Refusal | None:
        shelf = self._ledger.shelves.get(send.mailbox)
        if shelf is None:
            return Refusal("unknown", send.mailbox, send.id)
        box = shelf.box
        if len(wire(send.body)) > box.max_bytes:
            return Refusal("too_large", send.mailbox, send.id, box.max_bytes)
        most = room(box.capacity, send.rank == 0)
        if shelf.size + self._added[send.mailbox] >= most:
            self._ledger.pass_time(self._now)
            if shelf.size + self._added[send.mailbox] >= most:
                return Refusal("full", send.mailbox, send.id, box.capacity)
        return None


def _digest(row: Entry) -> bytes | None:
    return row.digest if row.body is None else fingerprint(row.body)
