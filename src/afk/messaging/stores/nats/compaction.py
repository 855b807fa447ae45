"""Makes an image of the state, in a thread of its own: reading the log anew, from the last one."""

from __future__ import annotations

import secrets

from ...errors import MessagingError
from ...log import log
from ..aside import Aside
from . import images, steps, stream
from .place import Place
from .session import Session
from .steps import Based
from .stream import Names


class Compaction:
    """One at a time. What fails is left to whoever finds it due the next time."""

    def __init__(self, place: Place, names: Names) -> None:
        self._place = place
        self._names = names
        self._created = ""
        self._aside = Aside("afk-nats image", self._make)

    def start(self, created: str) -> None:
        """Make an image of what is in the log now; created: which log it is."""
        self._created = created
        self._aside.start()

    async def close(self) -> None:
        """Leave it unfinished."""
        await self._aside.stop()

    # -- in the thread -------------------------------------------------------------------

    async def _make(self) -> None:
        try:
            await compact(self._place, self._names, self._created)
        except MessagingError as error:
            log.warning("no image of the state was made: %s", error)


async def compact(place: Place, names: Names, created: str) -> bool:
    """Make an image of what is in the log now; False if another process was faster."""
    session = Session(
        place,
        names,
        own=lambda _writer, _number: (),
        stepped=lambda _step: None,
        stored=lambda _name, _error: None,
        ended=lambda _error: None,
    )
    await session.open(None, created, None)
    await session.close()  # from here on its replica stands still
    client = await place.connect("afk.messaging image")
    try:
        length = await images.store(client, names, session.info, session.replica, session.image_at)
        if length is not None:
            ops = steps.packed((Based(session.replica.size, length),))
            writer = secrets.token_hex(8)
            for message in steps.parts(writer, 1, None, ops, client.max_payload):
                await stream.publish(client, names.steps, message)
    finally:
        await place.leave(client)
    return length is not None
