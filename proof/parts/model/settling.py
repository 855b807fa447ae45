"""What a consumer does."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import consumes, multiple, rule

from afk.messaging import LeaseLostError

from .desk import HELD, REFUSED, Desk, Held, boxes
from .lifecycle import POLICY, Asked


class Settling(Desk):
    """What a consumer does."""

    @rule(target=HELD, name=boxes, lease=st.sampled_from([3.0, 12.0]))
    def claim(self, name: str, lease: float) -> Any:
        call = self.box[name].claim(timeout=0, lease=lease)
        if name not in self.model.registered:
            self.refused("unknown", call)
            return multiple()
        delivery = self.run(call)
        ready = self.model.ready(name)
        if delivery is None:
            assert not ready, "something ready was not delivered"
            return multiple()
        mail = self.model.mail[delivery.message.id]
        assert mail in ready
        assert mail.rank == min(m.rank for m in ready)
        fresh = [m.place for m in ready if m.rank == mail.rank and not m.attempt]
        assert mail.attempt or mail.place == min(fresh)
        assert delivery.message.content == mail.asked.content
        mail.state, mail.lease_end = "leased", self.model.now + lease
        mail.attempt += 1
        mail.fence += 1
        assert delivery.attempt == mail.attempt
        return Held(delivery, mail, mail.fence, mail.attempt)

    def _settle(self, held: Held, call: Coroutine[Any, Any, None]) -> bool:
        """Settle; whether it was still ours to settle, as the model says."""
        if not self.model.held(held.mail, held.fence):
            with pytest.raises(LeaseLostError):
                self.run(call)
            return False
        self.run(call)
        return True

    def _done(self, held: Held) -> None:
        held.mail.state, held.mail.settled_fence = "done", held.fence

    def _failed(self, held: Held, due: float) -> None:
        held.mail.settled_fence = held.fence
        held.mail.fail(due, held.mail.box in self.model.registered)
        self.model.settle_time()

    @rule(held=HELD)
    def ack(self, held: Held) -> None:
        if self._settle(held, held.delivery.ack()):
            self._done(held)

    @rule(held=consumes(HELD), onward=boxes)
    def ack_with_a_send(self, held: Held, onward: str) -> None:
        if held.delivery.settled:
            with pytest.raises(LeaseLostError):
                self.run(held.delivery.send(onward, "y"))
            return
        message = self.run(held.delivery.send(onward, "y"))
        asked = Asked(onward, "y", sender=held.mail.box)
        mine = self.model.held(held.mail, held.fence)
        state, held.mail.state = held.mail.state, "done" if mine else held.mail.state
        verdict = self.model.verdict(asked)  # with the room that the ack frees
        held.mail.state = state
        if mine and verdict in REFUSED:
            self.refused(verdict, held.delivery.ack())
        elif self._settle(held, held.delivery.ack()):
            self._done(held)
            self.model.accept(message.id, asked)

    @rule(held=consumes(HELD))
    def answer(self, held: Held) -> None:
        assume(held.mail.asked.request and not held.delivery.settled)
        answer = f"answer {held.fence}"
        reply = self.run(held.delivery.reply(answer))
        if self._settle(held, held.delivery.ack()):
            self._done(held)
            self.model.answer(held.mail, reply.id, answer)

    @rule(held=HELD, delay=st.sampled_from([None, 0.0, 3.0]))
    def nack(self, held: Held, delay: float | None) -> None:
        if self._settle(held, held.delivery.nack("failed", delay=delay)):
            pause = POLICY.delay(held.attempt, 0) if delay is None else delay
            if held.attempt >= POLICY.max_attempts:
                held.mail.settled_fence = held.fence
                held.mail.die("exhausted")
            else:
                self._failed(held, self.model.now + pause)

    @rule(held=HELD)
    def reject(self, held: Held) -> None:
        if self._settle(held, held.delivery.reject("bad")):
            held.mail.settled_fence = held.fence
            held.mail.die("rejected")

    @rule(held=HELD, delay=st.sampled_from([0.0, 4.0]))
    def give_back(self, held: Held, delay: float) -> None:
        call = held.delivery.retry(delay, counts=False) if delay else held.delivery.give_back()
        if self._settle(held, call):
            held.mail.attempt -= 1
            self._failed(held, self.model.now + delay)

    @rule(held=HELD)
    def extend(self, held: Held) -> None:
        if self._settle(held, held.delivery.extend(10)):
            held.mail.state, held.mail.lease_end = "leased", self.model.now + 10
