"""Time that passes, and what an operator does."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from .desk import SENT, Desk, boxes
from .lifecycle import Mail


class Mending(Desk):
    """Time that passes, and what an operator does."""

    @rule(seconds=st.sampled_from([1.0, 2.0, 4.0, 11.0, 30.0]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.model.now += seconds
        self.model.settle_time()

    @rule(mail=SENT)
    def cancel(self, mail: Mail) -> None:
        waits = mail.state in ("pending", "scheduled")
        assert self.run(self.bus.cancel(mail.id)) == waits
        mail.state = "cancelled" if waits else mail.state

    @rule(mail=SENT)
    def redrive(self, mail: Mail) -> None:
        self._redriven([mail], self.run(self.bus.redrive(mail.id)))

    @rule(name=boxes)
    def redrive_all(self, name: str) -> None:
        order = [letter.id for letter in self.run(self.bus.dead_letters(name))]
        found = [self.model.mail[i] for i in order]
        self._redriven(found, self.run(self.bus.redrive(agent=name)))

    def _redriven(self, found: list[Mail], count: int) -> None:
        dead = [m for m in found if m.state == "dead" and m.box in self.model.registered]
        assert count == len(dead)
        for mail in dead:
            mail.state, mail.reason, mail.attempt = "pending", None, 0
            mail.fence += 1  # whoever held it once cannot settle it any more
            mail.place = self.model.next_place()
            mail.expires = None if mail.asked.ttl is None else self.model.now + mail.asked.ttl

    @rule(mail=SENT)
    def discard(self, mail: Mail) -> None:
        dead = mail.state == "dead"
        assert self.run(self.bus.discard(mail.id)) == dead
        mail.state = "gone" if dead else mail.state

    @rule(name=boxes)
    def leave_or_join(self, name: str) -> None:
        if name not in self.model.registered:
            self.model.registered.add(name)
            self.join(name)
            return
        self.run(self.bus.unregister(name))
        self.model.registered.remove(name)
        for mail in self.model.mail.values():
            if mail.box == name and mail.state in ("pending", "scheduled"):
                mail.die("unregistered")
