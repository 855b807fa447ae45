"""Promise 14: everything is readable, and looking changes nothing."""

from __future__ import annotations

from typing import Any

from ...bus import MessageBus
from ...errors import ConfigurationError, UnknownAgentError
from ...mailbox import AgentMailbox
from ...trace import Entry
from ..clock import FakeClock
from ..expect import raises
from ..steps import AT_ONCE, PATIENCE, claimed, contents
from ..subject import Subject


async def check_looking_changes_nothing(subject: Subject) -> None:
    """However often and with whatever one looks: a lease ends when it would have, attempts are
    counted by claims alone, and the order stays."""
    clock = FakeClock()
    async with subject.bus(clock, retry=AT_ONCE) as bus, subject.bus(clock) as watcher:
        bob, eye = await bus.register("bob"), await watcher.register("bob")
        sent = [await bob.send("bob", n) for n in range(3)]
        await (await claimed(bob)).nack()
        held = await claimed(bob, lease=10)
        assert (held.message.content, held.attempt) == (0, 2)
        for _ in range(5):
            clock.advance(1.9)
            await _look(watcher, eye, held.message.id)
            assert await watcher.status(held.message.id) == "leased"
        clock.advance(1)
        assert [message.content for message in await eye.peek()] == [0, 1, 2]
        await _look(watcher, eye, held.message.id)
        await held.ack()  # late, and no look has claimed it
        entries = [await _entry(watcher, receipt.id) for receipt in sent]
        assert [(x.state, x.attempts) for x in entries] == [
            ("done", 2),
            ("pending", 0),
            ("pending", 0),
        ]
        assert await contents(bob) == [1, 2]


async def _look(bus: MessageBus, mailbox: AgentMailbox, message_id: str) -> None:
    """Every way to look."""
    await bus.trace(message_id)
    await bus.get(message_id)
    await bus.status(message_id)
    await bus.messages()
    await bus.stats()
    await bus.agents()
    await bus.dead_letters()
    await mailbox.peek()
    await mailbox.message_count()


async def check_a_status_for_every_state(subject: Subject) -> None:
    """`status` and `get` know a message in each of its states, and None is what they say of one
    that is not known."""
    async with subject.bus() as bus:
        bob = await bus.register("bob")
        ways = ("done", "dead", "leased", "pending", "scheduled", "cancelled")
        sent = {
            state: await bob.send("bob", state, delay=900 if state == "scheduled" else 0)
            for state in ways
        }
        await (await claimed(bob, PATIENCE)).ack()
        await (await claimed(bob, PATIENCE)).reject("bad")
        await claimed(bob, PATIENCE)
        assert await bus.cancel(sent["cancelled"].id) == 1
        for state, receipt in sent.items():
            assert await bus.status(receipt.id) == state
            assert await receipt.status() == state
            assert await bus.get(receipt.id) == receipt.message
            [entry] = await bus.messages(state=state)
            assert (entry.id, entry.agent) == (receipt.id, "bob")
        assert await bus.status("unknown") is None
        assert await bus.get("unknown") is None


async def check_cancel_takes_only_the_unclaimed(subject: Subject) -> None:
    """`cancel` ends what no one has claimed yet, scheduled or pending, says how many that were,
    and leaves the rest; what is cancelled is never delivered."""
    async with subject.bus(retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        leased = await bob.send("bob", "leased")
        delivery = await claimed(bob, PATIENCE)
        waiting = await bob.send("bob", "waiting")
        late = await bob.send("bob", "late", delay=900)
        ids = [leased.id, waiting.id, late.id, "unknown"]
        assert await bus.cancel(*ids) == len([waiting, late])
        assert await bus.cancel(*ids) == 0
        assert await bus.cancel() == 0
        await delivery.ack()
        assert await leased.settled(PATIENCE) == "done"
        assert await waiting.settled(PATIENCE) == "cancelled"
        assert await contents(bob) == []


async def check_messages_is_a_cursor(subject: Subject) -> None:
    """`messages(after=cursor)` pages through all there is, each once, in the order accepted, also
    while more is sent; agent, state and correlation narrow it."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        sent = [await ada.send("bob", n, correlation_id=f"c{n % 2}") for n in range(7)]
        await (await claimed(bob, PATIENCE)).ack()
        await ada.send("ada", "own")
        found: list[Entry] = []
        while page := await bus.messages(
            agent="bob", after=found[-1].cursor if found else None, limit=3
        ):
            found += page
            if len(sent) < len("12345678"):
                sent.append(await ada.send("bob", 7, correlation_id="c1"))
        assert [entry.id for entry in found] == [receipt.id for receipt in sent]
        odd = await bus.messages(correlation_id="c1")
        assert [_content(entry) for entry in odd] == [1, 3, 5, 7]
        [done] = await bus.messages(state="done")
        assert _content(done) == 0
        assert len(await bus.messages(state="pending", agent="bob")) == len(sent) - 1
        for wrong in ({"state": "nonsense"}, {"after": "nonsense"}):
            with raises(ConfigurationError):
                await bus.messages(**wrong)  # type: ignore[arg-type]


async def check_an_entry_tells_when(subject: Subject) -> None:
    """An entry has the message's state, attempts, and the times it was accepted, first leased
    and settled, on the store's clock."""
    clock = FakeClock()
    async with subject.bus(clock, retry=AT_ONCE) as bus:
        bob = await bus.register("bob")
        receipt = await bob.send("bob", "work")
        start = clock.now
        entry = await _entry(bus, receipt.id)
        assert (entry.accepted_at, entry.leased_at, entry.settled_at) == (start, None, None)
        clock.advance(5)
        await (await claimed(bob)).nack()
        clock.advance(5)
        await (await claimed(bob)).ack()
        entry = await _entry(bus, receipt.id)
        assert (entry.state, entry.attempts) == ("done", 2)
        assert (entry.leased_at, entry.settled_at) == (start + 5, start + 10)


async def check_stats_count_everything(subject: Subject) -> None:
    """`stats` counts each registered mailbox: pending per priority and in all, leased, scheduled,
    dead, the age of the oldest waiting message and when a consumer last asked."""
    clock = FakeClock()
    async with subject.bus(clock) as bus:
        bob = await bus.register("bob")
        await bus.register("idle")
        await bob.send("bob", "dead")
        await (await claimed(bob)).reject("bad")
        asked = clock.now
        await bob.send("bob", "leased")
        await claimed(bob, lease=900)
        await bob.send("bob", "late", delay=900)
        clock.advance(5)
        for priority in ("urgent", "normal", "normal", "low"):
            await bob.send("bob", "waits", priority=priority)
        clock.advance(7)
        stats = await bus.stats()
        assert set(stats) == {"bob", "idle"}
        assert stats["bob"].pending == {"urgent": 1, "high": 0, "normal": 2, "low": 1, "all": 4}
        found = stats["bob"]
        assert (found.leased, found.scheduled, found.dead) == (1, 1, 1)
        assert (found.oldest_age, found.last_seen) == (7, asked)
        idle = stats["idle"]
        assert (idle.pending["all"], idle.oldest_age, idle.last_seen) == (0, None, None)


async def check_peek_shows_what_will_come(subject: Subject) -> None:
    """`peek` shows what waits, in delivery order, as it would be received; neither it nor
    `message_count` shows what is scheduled or leased."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", "leased", priority="urgent")
        held = await claimed(bob, PATIENCE)
        await ada.send("bob", "late", delay=900)
        for n in range(4):
            await ada.send("bob", n, priority="normal" if n % 2 else "high", metadata={"n": n})
        shown = await bob.peek()
        assert [message.content for message in shown] == [0, 2, 1, 3]
        assert [message.content for message in await bob.peek(limit=2)] == [0, 2]
        assert await bob.message_count() == len(shown)
        await held.ack()
        assert [await bob.receive(timeout=PATIENCE) for _ in shown] == shown
        await bus.unregister("bob")
        with raises(UnknownAgentError):
            await bob.message_count()


async def check_a_trace_is_the_whole_chain(subject: Subject) -> None:
    """`trace` has every message of a correlation, the root included, each behind its cause; it
    prints as a tree and as a sequence diagram."""
    async with subject.bus() as bus:
        ada, bob, eve = [await bus.register(name) for name in ("ada", "bob", "eve")]
        root = await ada.send("bob", "root")
        await ada.send("bob", "another chain")
        async with await claimed(bob, PATIENCE) as delivery:
            await delivery.send("eve", "child 1")
            await delivery.reply("child 2")
        async with await claimed(eve, PATIENCE) as delivery:
            await delivery.send("ada", "grandchild")
        trace = await bus.trace(root.id)
        told = [_content(entry) for entry in trace]
        assert told == ["root", "child 1", "grandchild", "child 2"]
        assert len(trace) == len(told)
        assert [entry.state for entry in trace] == ["done", "done", "pending", "pending"]
        assert len(str(trace).splitlines()) == len(told) + 1
        assert all(text in str(trace) for text in told)
        assert trace.mermaid().startswith("sequenceDiagram")
        assert all(text in trace.mermaid() for text in ("root", "ada", "eve"))
        assert len(await bus.trace("unknown")) == 0


async def check_a_chain_keeps_its_correlation(subject: Subject) -> None:
    """A chain started under a correlation id is found under it, whoever carries it on; a message
    without one starts a chain under its own id."""
    async with subject.bus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        await ada.send("bob", "root", correlation_id="run-7")
        message = await bob.receive(timeout=PATIENCE)
        assert message is not None
        await bus.deliver(message.reply("answer"))
        assert [_content(entry) for entry in await bus.trace("run-7")] == ["root", "answer"]
        alone = await ada.send("bob", "alone")
        assert [entry.id for entry in await bus.trace(alone.id)] == [alone.id]


async def check_the_finished_is_readable_for_a_while(subject: Subject) -> None:
    """Bodies of finished messages are kept for `history` seconds, for reading back, and are then
    let go; what is open or dead keeps its body."""
    clock = FakeClock()
    async with subject.bus(clock, history=100.0, retention=1000.0) as bus:
        bob = await bus.register("bob")
        done, dead, open_ = [await bob.send("bob", n) for n in range(3)]
        await (await claimed(bob)).ack()
        await (await claimed(bob)).reject("bad")
        clock.advance(99)
        assert await bus.get(done.id) == done.message
        clock.advance(2000)
        assert await bus.get(done.id) is None
        assert await bus.get(dead.id) == dead.message
        assert await contents(bob) == [open_.message.content]


async def _entry(bus: MessageBus, message_id: str) -> Entry:
    [entry] = [entry for entry in await bus.messages() if entry.id == message_id]
    return entry


def _content(entry: Entry) -> Any:
    assert entry.message is not None
    return entry.message.content
