"""What goes wrong besides single calls of the store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .story import Slot, Story


class Troubles:
    """Each is one thing that happens to a process, or to all."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._chance = story.chance
        self.all = (
            *[self.kill] * 2,
            *[self.block] * 2,
            self.stop,
            self.interrupt,
            self.cut_off,
        )

    async def kill(self) -> None:
        """A process is gone in the middle of whatever it does, and another takes its place."""
        slot = self._slot()
        if slot.host.gone:
            return
        self._note(slot, "killed")
        slot.host.kill()
        await asyncio.sleep(2 * self._chance.random())
        if slot.host.gone:
            slot.start()

    async def stop(self) -> None:
        """A consumer is cancelled, and put to work again."""
        slot = self._slot()
        if not slot.consumers or slot.host.gone:
            return
        number = int(self._chance.random() * len(slot.consumers))
        self._note(slot, "a consumer was cancelled")
        task = slot.consumers[number]
        task.cancel()
        await asyncio.wait([task])
        if not slot.host.gone and slot.consumers[number] is task:
            slot.employ(number)

    async def interrupt(self) -> None:
        """Calls of users are cancelled, some callbacks after they were begun."""
        for _ in range(3):
            for _ in range(int(10 * self._chance.random())):
                await asyncio.sleep(0)
            if call := self._story.running():
                host, task = call
                self._story.notes.note("fault", process=host.name, outcome="a call was cancelled")
                task.cancel()
                return
            await asyncio.sleep(self._chance.random())

    async def cut_off(self) -> None:
        """A process does not reach the store for a while."""
        slot = self._slot()
        if not slot.host.gone:
            self._note(slot, "cut off")
            slot.host.link.down_until = self._story.loop.time() + 2 * self._chance.random()

    async def block(self) -> None:
        """Nothing runs for a while, so that many timers are late at once."""
        self._story.block(2 * self._chance.random())

    def _slot(self) -> Slot:
        return self._chance.choice(self._story.slots)

    def _note(self, slot: Slot, outcome: str) -> None:
        self._story.notes.note("fault", process=slot.host.name, outcome=outcome)
