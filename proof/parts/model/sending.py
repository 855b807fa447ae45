"""What is sent: messages, broadcasts, requests."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import multiple, rule

from afk.messaging.messages import PRIORITIES

from .desk import REFUSED, SENT, Desk, boxes
from .lifecycle import Asked, Mail

ttls = st.sampled_from([None, None, 7.0, 20.0])
keys = st.sampled_from([None, None, "k", "l"])
LONG = 1e6


class Sending(Desk):
    """What is sent: messages, broadcasts, requests."""

    @rule(
        target=SENT,
        box=boxes,
        priority=st.sampled_from(PRIORITIES),
        thread=st.sampled_from(["", "t", "u"]),
        delay=st.sampled_from([0.0, 0.0, 5.0]),
        ttl=ttls,
    )
    def send(self, **fields: Any) -> Any:
        return self._one(self.sent(Asked(**fields)))

    @rule(
        target=SENT,
        box=boxes,
        content=st.sampled_from("xxy"),
        key=keys,
        thread=st.sampled_from(["", "", "t"]),
    )
    def send_under_a_key(self, **fields: Any) -> Any:
        return self._one(self.sent(Asked(**fields)))

    @rule(target=SENT, count=st.integers(2, 9), priority=st.sampled_from(["low", "urgent"]))
    def fill(self, count: int, priority: str) -> Any:
        asked = Asked("small", priority=priority)
        return multiple(*filter(None, [self.sent(asked) for _ in range(count)]))

    @rule(target=SENT, key=st.sampled_from([None, "b"]), ttl=ttls)
    def broadcast(self, key: str | None, ttl: float | None) -> Any:
        """A copy for each that is registered; dead at once where there is no room."""
        receipts = self.run(self.ada.broadcast("x", ttl=ttl, idempotency_key=key))
        names = sorted(self.model.registered)
        assert len(receipts) == len(names)
        copies = {receipt.id: receipt for receipt in receipts}
        agents = {entry.id: entry.agent for entry in self.run(self.bus.messages(limit=10_000))}
        new = []
        for id_ in sorted(copies, key=agents.__getitem__):
            asked = Asked(agents[id_], ttl=ttl, key=key)
            verdict = self.model.verdict(asked)
            assert copies[id_].duplicate == (verdict == "duplicate")
            if verdict != "duplicate":
                new.append(self.model.accept(id_, asked))
                if verdict == "full":
                    new[-1].die("full")
        return multiple(*new)

    @rule(target=SENT, box=boxes, ttl=ttls)
    def ask(self, box: str, ttl: float | None) -> Any:
        asked = Asked(box, ttl=ttl or LONG, request=True)
        call = self.ada.request(box, "x", timeout=LONG, ttl=ttl)
        verdict = self.model.verdict(asked)
        if verdict in REFUSED:
            self.refused(verdict, call)
            return multiple()
        waiter = self.loop.create_task(call)
        id_ = self.run(self._stored(waiter))
        self.waiting[id_] = waiter
        return self.model.accept(id_, asked)

    async def _stored(self, waiter: asyncio.Task[Any]) -> str:
        """Its id, once it is stored: the only one that is not known yet."""
        while True:
            assert not waiter.done(), waiter.exception()
            for entry in await self.bus.messages(limit=10_000):
                if entry.id not in self.model.mail:
                    return entry.id
            await asyncio.sleep(0)

    def _one(self, mail: Mail | None) -> Any:
        return multiple() if mail is None else mail
