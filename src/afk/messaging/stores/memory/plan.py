"""What a turn would store, decided before anything is: all of it, or a refusal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from ...lifecycle import room
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
        known = self._known(send)
        if known is not None:
            return known if isinstance(known, Refusal) else self._accept(known)
        if send.answers is not None:
            request = self._ledger.rows.get(send.answers)
            if request is not None and request.awaited:
                if request.answer is not None or request.state == "cancelled":
                    return self._accept(Accepted(send.id, ignored=True))
                return self._step("answer", send)
            if request is None and send.awaited:
                return self._accept(Accepted(send.id, ignored=True))
        if send.dead is not None:
            return self._step("dead", send)
        refusal = self._no_place(send)
        if refusal is None:
            self._added[send.mailbox] += 1
            return self._step("mail", send)
        if not send.alone:
            return refusal
        reason: Literal["full", "undeliverable"] = (
            "full" if refusal.kind == "full" else "undeliverable"
        )
        return self._step("dead", replace(send, dead=(reason, refusal.kind)))

    def _step(self, kind: Literal["mail", "answer", "dead"], send: Send) -> None:
        self._planned[send.id] = send
        self.steps.append((kind, send))
        return self._accept(Accepted(send.id))

    def _accept(self, accepted: Accepted) -> None:
        self.accepted.append(accepted)

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
