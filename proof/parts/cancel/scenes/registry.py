"""For each coroutine a scene: what comes before, and the call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..stage import Call, Stage

Scene = Callable[[Stage], Awaitable[Call | None]]
"""Makes ready and returns the call, which has to work again after it was cancelled; None where the
store does not have it."""
SCENES: dict[str, Scene] = {}


def scene(of: str) -> Callable[[Scene], Scene]:
    """The scene of a coroutine."""

    def enter(made: Scene) -> Scene:
        SCENES[of] = made
        return made

    return enter


def look(of: str, call: Callable[[Stage, str], Awaitable[Any]]) -> None:
    """The scene of a call that changes nothing; it gets the id of a message that waits."""

    async def made(stage: Stage) -> Call:
        receipt = await stage.mail()

        async def looks() -> None:
            await call(stage, receipt.id)

        return looks

    SCENES[of] = made
