"""One process's writes wake those who wait in another, by a watch on the file or by glances."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from afk.messaging import SQLiteMessageBus
from afk.messaging.stores.sqlite import lookout

SOON = 2.0
"""Far less than the 30 s after which a consumer asks again unasked."""


@pytest.fixture(params=["watched", "glanced at"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "glanced at":
        monkeypatch.setattr(lookout, "watch", lambda path: None)
    elif sys.platform != "linux":
        pytest.skip("files are watched on Linux only")


async def test_mail_from_another_bus_wakes_a_receiver(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    async with SQLiteMessageBus(path) as here, SQLiteMessageBus(path) as there:
        bob = await here.register("bob")
        ada = await there.register("ada")
        for number in range(5):
            waiting = asyncio.create_task(bob.receive(timeout=SOON))
            await asyncio.sleep(0.03)
            await ada.send("bob", number)
            message = await waiting
            assert message is not None
            assert message.content == number


async def test_many_mailboxes_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    async with SQLiteMessageBus(path) as here, SQLiteMessageBus(path) as there:
        boxes = [await here.register(f"bob-{number}") for number in range(80)]
        ada = await there.register("ada")
        waiting = [asyncio.create_task(box.receive(timeout=SOON)) for box in boxes]
        await asyncio.sleep(0.1)
        await ada.send("bob-7", "seven")
        message = await waiting[7]
        assert message is not None
        assert message.content == "seven"
        assert sum(task.done() for task in waiting) == 1
        for task in waiting:
            task.cancel()


async def test_what_another_bus_delayed_wakes_when_it_is_due(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    async with SQLiteMessageBus(path) as here, SQLiteMessageBus(path) as there:
        bob = await here.register("bob")
        ada = await there.register("ada")
        waiting = asyncio.create_task(bob.receive(timeout=SOON))
        await asyncio.sleep(0.03)
        start = time.monotonic()
        await ada.send("bob", "later", delay=0.2)
        assert await waiting is not None
        assert time.monotonic() - start >= 0.2


async def test_a_lease_that_ends_elsewhere_wakes_a_receiver(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    async with SQLiteMessageBus(path) as here, SQLiteMessageBus(path) as there:
        bob, twin = await here.register("bob"), await there.register("bob")
        await twin.send("bob", "work")
        assert await twin.claim(timeout=0, lease=0.1) is not None
        assert await bob.receive(timeout=SOON) is not None


async def test_an_answer_from_another_bus_wakes_the_requester(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    async with SQLiteMessageBus(path) as here, SQLiteMessageBus(path) as there:
        ada = await here.register("ada")
        bob = await there.register("bob")

        async def handler(delivery):
            return "yes"

        serving = asyncio.create_task(bob.serve(handler))
        answer = await ada.request("bob", "well?", timeout=SOON)
        assert answer.content == "yes"
        serving.cancel()
