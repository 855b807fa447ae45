"""When a PostgreSQL store looks for news."""

from __future__ import annotations

import asyncio

from afk.messaging.hints import Bells
from afk.messaging.stores.postgres.ears import Ears
from afk.messaging.testing.steps import until


async def test_who_waits_again_wakes_a_looker_that_was_called_just_before() -> None:
    """Something was due while nobody waited, and the looker went back to sleep for that."""
    bells, looks = Bells(), 0

    async def look(topics: list[str]) -> tuple[list[str], float | None]:
        nonlocal looks
        looks += 1
        return [], None

    async def nothing(*_: object) -> None:
        await asyncio.Event().wait()

    ears = Ears("a database", "channel", bells, nothing, look, nothing)  # type: ignore[arg-type]
    bell = bells.listen("mail:bob")
    ears.awake()
    await until(lambda: looks > 0, "it looks for who waits")
    bell.close()
    await until(lambda: ears._asleep, "nobody waits any more")
    before = looks
    ears.expect(-1.0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    bells.listen("mail:bob")
    ears.awake()
    await until(lambda: looks > before, "it looks again", timeout=2.0)
    await ears.close()
