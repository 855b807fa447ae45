"""Who comes after the cut: finds what is there, sends again what is in doubt, and works it off."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from afk.messaging import MessageBus, MessagingError
from afk.messaging.testing.history import Event, History, digest, read
from afk.messaging.testing.verdict import Parts, Rules, judge
from afk.messaging.testing.witness import PAGE, Witness, note_the_end

from .clients import BOXES, NEXT, PARTS, WORK, letter, part

PATIENCE = 60.0
LONG = 30.0


@dataclass
class Found:
    """What is there: the mailboxes, and by its id each message's mailbox, digest and state."""

    boxes: list[str]
    messages: dict[str, tuple[str, str, str]]

    def __post_init__(self) -> None:
        self.digests = {digest for _, digest, _ in self.messages.values()}

    def has(self, name: str, content: str) -> bool:
        """Whether a message is there, as it was sent."""
        return name in self.messages and self.messages[name][1] == content


async def found(bus: MessageBus) -> Found:
    """All there is."""
    messages: dict[str, tuple[str, str, str]] = {}
    after = None
    while page := await bus.messages(after=after, limit=PAGE):
        for entry in page:
            content = digest(entry.message and entry.message.content)
            messages[entry.id] = entry.agent, content, entry.state
        after = page[-1].cursor
    return Found(await bus.agents(), messages)


async def inherit(bus: MessageBus, notes: Path, known: list[Event], there: Found) -> list[str]:
    """A sentence for each promise that is not kept."""
    parts = Parts(known)
    sentences = [f"mailbox {name!r} is lost" for name in BOXES if name not in there.boxes]
    sentences += _torn(there)
    history = History(notes, "heir")
    try:
        boxes = {name: Witness(await bus.register(name), history) for name in BOXES}
        doubtful = [
            asked for asked, end in parts.sends if asked.key and not (end and end.phase == "ok")
        ]
        again = [
            boxes[asked.sender].send(asked.mailbox, letter(asked.key), key=asked.key)
            for asked in doubtful
        ]
        for asked, receipt in zip(doubtful, await asyncio.gather(*again), strict=True):
            if receipt.duplicate != (asked.digest in there.digests):
                sentences.append(f"{asked.key}, sent again, is duplicate={receipt.duplicate}")
        try:
            async with asyncio.timeout(PATIENCE):
                await _work_off(bus, boxes[WORK])
        except TimeoutError:
            sentences.append(f"{WORK!r} is not worked off within {PATIENCE:g} s")
        await note_the_end(bus, history, 0.0)
    except MessagingError as error:
        sentences.append(f"with the power back: {error!r}")
    finally:
        history.close()
    events = known + [event for event in read(notes) if event.process != "client"]
    return sentences + judge(events, Rules(drained=False)).violations


def _torn(there: Found) -> Iterator[str]:
    """A turn is whole: it is done and all of what it sends on is there, or nothing of both."""
    onward = {content for box, content, _ in there.messages.values() if box == NEXT}
    for name, (box, _, state) in there.messages.items():
        if box == WORK:
            left = sum(digest(part(name, number)) in onward for number in range(PARTS))
            if left != (PARTS if state == "done" else 0):
                yield f"the turn of {name} is torn: {state}, {left} of {PARTS} messages left"


async def _work_off(bus: MessageBus, work: Witness) -> None:
    """Claim and settle until nothing is left, what was in someone's hands at the cut included."""
    while True:
        delivery = await work.claim(0.1, lease=LONG)
        if delivery is not None:
            await work.settle(delivery, "done")
            continue
        stats = (await bus.stats())[WORK]
        if not stats.pending["all"] + stats.leased + stats.scheduled:
            return
