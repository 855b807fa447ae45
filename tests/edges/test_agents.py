"""The newsroom's handlers over the memory store: what is delivered twice has one effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from afk.messaging import AgentMessage, Delivery, MessageBus, RetryPolicy, Trace, connect
from afk.messaging.edges.demo import agents, report
from afk.messaging.edges.demo.mail import (
    COORDINATOR,
    MAILBOXES,
    RESEARCHER,
    WRITER,
    Published,
    pack,
    unpack,
)
from afk.messaging.edges.demo.shelf import Shelf

AT_ONCE = RetryPolicy(base=0.0)


@pytest.fixture
def desk(tmp_path: Path) -> agents.Desk:
    folder = tmp_path / "pages"
    folder.mkdir()
    for name in ("one", "two", "three"):
        (folder / f"{name}.md").write_text(f"# {name}\n\nThis page is all about the word {name}.\n")
    shelf = Shelf(tmp_path / "out")
    shelf.open()
    return agents.Desk(shelf, lambda *_, **__: None, "flow", folder, pace=0.0)


@pytest.fixture
async def bus() -> AsyncIterator[MessageBus]:
    async with connect("memory://", retry=AT_ONCE) as bus:
        for name in MAILBOXES:
            await bus.register(name)
        yield bus


async def twice(handler: Any, delivery: Delivery[AgentMessage]) -> Any:
    """A handler whose process dies after its work and before the ack, once for each message."""
    result = await handler(delivery)
    if delivery.attempt == 1:
        raise RuntimeError("died before the ack")
    return result


async def publish(bus: MessageBus, desk: agents.Desk) -> tuple[Published, Trace]:
    """The whole newsroom in one process, every message handled twice."""
    boss = await bus.register(COORDINATOR)
    async with asyncio.TaskGroup() as tasks:
        serving = [
            tasks.create_task(
                (await bus.register(name)).serve(partial(twice, partial(handler, desk)))
            )
            for name, handler in agents.HANDLERS.items()
        ]
        async with asyncio.timeout(10):
            published = await agents.coordinate(desk, boss)
            await all_settled(bus)
        for task in serving:
            task.cancel()
    return published, await bus.trace(desk.workflow)


async def all_settled(bus: MessageBus) -> None:
    while True:
        stats = (await bus.stats()).values()
        if not any(box.pending["all"] + box.leased + box.scheduled for box in stats):
            return
        await asyncio.sleep(0)


async def test_though_every_message_is_handled_twice_each_file_is_used_once(
    bus: MessageBus, desk: agents.Desk
) -> None:
    published, trace = await publish(bus, desk)
    text = desk.shelf.report(published.report)
    assert report.check(text, ["one.md", "two.md", "three.md"]) is None
    assert report.review(text) == ()
    sent = [(e.message.sender, e.agent) for e in trace if e.message]
    assert sent.count((RESEARCHER, WRITER)) == 3
    assert sent.count((WRITER, "editor")) == 2  # the draft, and the answer to the editor
    assert sent.count(("editor", COORDINATOR)) == 1
    assert await bus.dead_letters() == []


def test_mail_travels_with_its_kind_last() -> None:
    mail = Published("edition", "report.md", 3)
    assert list(pack(mail)) == ["edition", "report", "files", "kind"]
    assert unpack(pack(mail), Published) == mail


async def test_the_same_folder_again_sends_nothing(bus: MessageBus, desk: agents.Desk) -> None:
    published, trace = await publish(bus, desk)
    again, unchanged = await publish(bus, desk)
    assert again == published
    assert [e.id for e in unchanged] == [e.id for e in trace]


async def test_only_what_changed_is_read_again(bus: MessageBus, desk: agents.Desk) -> None:
    first, trace = await publish(bus, desk)
    (desk.folder / "one.md").write_text("This page has other words now.\n")
    second, more = await publish(bus, desk)
    assert second.edition != first.edition
    assert "other words now" in desk.shelf.report(second.report)
    known = {e.id for e in trace}
    new = [
        e.message.content["path"]
        for e in more
        if e.message and e.id not in known and e.agent == RESEARCHER
    ]
    assert new == ["one.md"]


async def test_a_bad_revision_is_a_dead_letter_that_says_why(
    bus: MessageBus, desk: agents.Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "revise", lambda *_: "# nothing\n")
    died = asyncio.Event()
    bus.on_dead_letter(lambda _: died.set())
    publishing = asyncio.create_task(publish(bus, desk))
    await died.wait()
    publishing.cancel()
    await asyncio.wait([publishing])
    (letter,) = await bus.dead_letters()
    assert letter.reason == "rejected"
    assert "missing: one.md, three.md, two.md" in letter.error
