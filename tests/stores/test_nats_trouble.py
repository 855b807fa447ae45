"""What goes wrong between a bus and its NATS server, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from afk.messaging import (
    AgentMessage,
    Delivery,
    RequestTimeoutError,
    StoreError,
    UsageError,
)
from afk.messaging.store import Turn
from afk.messaging.stores.nats.session import Session
from afk.messaging.testing.servers import NATS, find
from afk.messaging.testing.steps import AT_ONCE, claimed, contents, serving, until
from proof.proxy import HOST, Proxy

from .over_nats import (
    Way,
    bus_at,
    jetstream,
    link_of,
    log_of,
    more,
    repeated,
    space,
    traffic,
    within,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NATS]:
    """A server that the test may damage."""
    with NATS(find("nats"), tmp_path / "server") as server:
        yield server


def keepers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("afk-nats")]


# -- the server is gone while a bus opens ------------------------------------------------


async def test_an_opening_that_loses_its_connection_between_two_questions_says_so(
    nats_server: NATS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between what it asks of JetStream and what it asks of the driver."""
    real = Session._standing

    async def lost_after(session: Session, *args: Any) -> Any:
        found = await real(session, *args)
        await session.client.close()
        return found

    monkeypatch.setattr(Session, "_standing", lost_after)
    with pytest.raises(StoreError, match="connection was lost"):
        async with bus_at(nats_server.url, patience=0.2):
            pass


# -- the server is gone for a while ------------------------------------------------------


async def test_a_claim_answered_late_does_not_hand_out_what_another_has_done(
    nats_server: NATS,
) -> None:
    with Proxy(HOST, nats_server.port) as proxy:
        url = nats_server.url.replace(f":{nats_server.port}", f":{proxy.port}")
        namespace = space()
        async with bus_at(url, namespace) as late, bus_at(nats_server.url, namespace) as other:
            mine, theirs = await late.register("bob"), await other.register("bob")
            sent = await theirs.send("bob", 1)
            await until(mine.message_count, "the mail is known here")
            proxy.freeze(to_server=False)
            claiming = asyncio.create_task(mine.claim(4, lease=0.3))

            async def taken() -> bool:
                return await sent.status() == "leased"

            await until(taken, "the claim got there")
            delivery = await claimed(theirs, timeout=3)
            assert delivery.attempt == 2
            await delivery.ack()
            proxy.heal()
            assert await claiming is None
            assert await sent.status() == "done"


async def test_a_crash_of_the_server_loses_nothing_that_was_accepted(server: NATS) -> None:
    senders, consumers = bus_at(server.url), bus_at(server.url)
    async with (
        senders,
        consumers,
        traffic(senders, consumers, consumer_url=server.url) as seen,
    ):
        for _ in range(3):
            await more(seen.accepted)
            server.kill()
            await asyncio.to_thread(server.start)
        await more(seen.accepted)
        await more(seen.handled)
    assert not seen.failures, "what is under way is sent again"
    assert not repeated(seen.handled), "no lease has ended"


async def test_a_server_that_is_stopped_is_waited_for(server: NATS) -> None:
    senders, consumers = bus_at(server.url), bus_at(server.url)
    async with senders, consumers, traffic(senders, consumers) as seen:
        await more(seen.accepted)
        await asyncio.to_thread(server.restart)
        await more(seen.accepted)
        os.kill(server.pid, signal.SIGUSR2)  # the lame duck: it says goodbye
        await asyncio.sleep(0.5)
        await asyncio.to_thread(server.restart, kill=True)
        await more(seen.accepted)
        await more(seen.handled)
    assert not seen.failures


async def test_a_call_under_way_in_a_crash_takes_effect_once(server: NATS) -> None:
    async with bus_at(server.url) as bus:
        mailbox = await bus.register("a")
        server.pause()
        sending = asyncio.create_task(mailbox.send("a", "content"))
        await asyncio.sleep(0.05)
        server.kill()
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(10):
            receipt = await sending
        assert not receipt.duplicate
        assert await contents(mailbox) == ["content"]


async def test_a_call_made_while_the_server_is_down_waits_for_it(server: NATS) -> None:
    async with bus_at(server.url) as bus:
        mailbox = await bus.register("a")
        server.kill()
        calls = [
            asyncio.create_task(call)
            for call in (mailbox.send("a", "content"), bus.stats(), bus.agents())
        ]
        await asyncio.sleep(0.3)
        assert not any(call.done() for call in calls)
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(10):
            await asyncio.gather(*calls)
        assert await contents(mailbox) == ["content"]


async def test_a_server_that_stays_away_is_said_after_the_patience(server: NATS) -> None:
    async with bus_at(server.url, patience=0.5) as bus:
        mailbox = await bus.register("a")
        server.kill()
        await until(lambda: link_of(bus)._session is None, "the loss is noticed")
        for call in (mailbox.send("a", 1, idempotency_key="k"), bus.agents()):
            began = time.monotonic()
            with pytest.raises(StoreError, match="nothing was stored") as raised:
                await call
            assert 0.3 < time.monotonic() - began < 2.5
            assert str(server.port) in str(raised.value)
        began = time.monotonic()
    assert time.monotonic() - began < 4, "closing waits for a server that is gone"


async def test_a_waiting_consumer_hears_again_after_a_restart(server: NATS) -> None:
    async with bus_at(server.url) as bus, bus_at(server.url) as other:
        mailbox, sender = await bus.register("a"), await other.register("b")
        waiting = asyncio.create_task(mailbox.receive(timeout=40))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(server.restart, kill=True)
        await sender.send("a", "hello")
        async with asyncio.timeout(10):
            assert await waiting is not None

        waiting = asyncio.create_task(mailbox.receive(timeout=40))
        await sender.send("a", "later", delay=1.5)
        await asyncio.to_thread(server.restart, kill=True)
        async with asyncio.timeout(12):
            assert await waiting is not None, "time passes for who waits"


async def test_a_handler_keeps_its_message_over_a_restart(server: NATS) -> None:
    async with bus_at(server.url) as bus, bus_at(server.url) as other:
        mailbox = await bus.register("a")
        await mailbox.send("a", 1)
        handled = []

        async def handler(delivery: Delivery[AgentMessage]) -> None:
            handled.append(delivery.attempt)
            await asyncio.to_thread(server.restart, kill=True)
            assert await (await other.register("a")).claim(timeout=4.5) is None  # renewed again

        async with serving(mailbox, handler, lease=3.0):

            async def done() -> bool:
                return (await bus.stats())["a"].leased == 0 and bool(handled)

            await until(done, "it is handled")
        assert handled == [1]


# -- the server does not answer ----------------------------------------------------------


async def test_a_silent_server_ends_each_call_in_its_time(server: NATS) -> None:
    async with bus_at(server.url, patience=1.0, lease=1, retry=AT_ONCE) as bus:
        mailbox = await bus.register("a")
        receipt = await mailbox.send("a", "first")
        server.pause()
        await asyncio.sleep(0.2)  # until all its threads stand still
        try:
            results = await asyncio.gather(
                within(2.5, mailbox.send("a", "second", idempotency_key="k")),
                within(2.5, bus.stats()),
                within(2.0, mailbox.receive(timeout=0.5)),
                within(2.0, mailbox.claim(timeout=0.5)),
                within(2.0, mailbox.request("a", "?", timeout=0.5)),
                within(2.0, receipt.settled(timeout=0.5)),
            )
            late = await within(2.5, mailbox.send("a", "third"))
        finally:
            server.resume()
        assert isinstance(results[0], StoreError)
        assert results[0].key == "k"
        assert isinstance(results[1], StoreError)
        assert isinstance(results[4], RequestTimeoutError | StoreError)
        assert isinstance(late, StoreError)

        await mailbox.send("a", "second", idempotency_key="k")
        found: list[Any] = []

        async def all_there() -> bool:
            found.extend(await contents(mailbox))
            return {"first", "second"} <= set(found)

        await until(all_there, "what was asked for in silence comes again", 10)


async def test_a_server_that_pauses_is_waited_for(server: NATS) -> None:
    senders, consumers = bus_at(server.url), bus_at(server.url)
    async with senders, consumers, traffic(senders, consumers) as seen:
        await more(seen.accepted)
        server.pause()
        await asyncio.sleep(1.0)
        server.resume()
        await more(seen.accepted)
        await more(seen.handled)
    assert not seen.failures
    assert not repeated(seen.handled)


async def test_a_server_that_pauses_for_longer_leaves_nothing_twice(server: NATS) -> None:
    senders, consumers = bus_at(server.url, patience=1.0), bus_at(server.url, patience=1.0)
    async with senders, consumers, traffic(senders, consumers) as seen:
        await more(seen.accepted)
        server.pause()
        await asyncio.sleep(3)
        server.resume()
        await more(seen.accepted)
        await more(seen.handled)
    assert seen.failures


async def test_much_that_is_under_way_to_a_silent_server_holds_nobody_up(server: NATS) -> None:
    """More than the sockets take."""
    async with bus_at(server.url, patience=1.0) as bus:
        mailbox = await bus.register("a")
        server.pause()
        try:
            body = "x" * 900_000
            results = await asyncio.gather(
                *(within(4, mailbox.send("a", body)) for _ in range(30)),
            )
            assert all(isinstance(each, StoreError) for each in results)
            began = time.monotonic()
            await bus.aclose()
            assert time.monotonic() - began < 6
        finally:
            server.resume()


# -- connections go ----------------------------------------------------------------------


async def test_cut_connections_are_made_again_and_nothing_fails(server: NATS) -> None:
    async with Way(server) as way:
        senders, consumers = bus_at(way.url), bus_at(way.url)
        async with senders, consumers, traffic(senders, consumers) as seen:
            for _ in range(12):
                await asyncio.sleep(0.2)
                way.cut()
            await more(seen.accepted)
            await more(seen.handled)
        assert not seen.failures
        assert not repeated(seen.handled)


async def test_a_connection_that_is_silent_is_given_up(server: NATS) -> None:
    async with Way(server) as way, bus_at(server.url) as other:
        bus = bus_at(way.url)
        async with bus:
            mailbox, sender = await bus.register("a"), await other.register("b")
            waiting = asyncio.create_task(mailbox.receive(timeout=40))
            await asyncio.sleep(0.1)
            way.swallow()
            await sender.send("a", 1)
            async with asyncio.timeout(12):
                message = await waiting
            assert message is not None
            await within(5, mailbox.send("a", 2))


@pytest.mark.parametrize("how", ["cut", "swallow"])
async def test_the_way_of_the_keeper_breaks_and_the_lease_is_held(
    server: NATS, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afk.messaging.stores.nats.stream.SECONDS", 0.5)
    async with (
        Way(server, only="afk.messaging leases") as way,
        bus_at(way.url) as bus,
        bus_at(server.url) as other,
    ):
        mailbox = await bus.register("a")
        await mailbox.send("a", 1)
        attempts = []

        async def handler(delivery: Delivery[AgentMessage]) -> None:
            attempts.append(delivery.attempt)
            await until(lambda: way.connections > 0, "it renews")
            getattr(way, how)()
            assert await (await other.register("a")).claim(timeout=4.5) is None
            assert way.connections

        async with serving(mailbox, handler, lease=3.0) as task:
            await until(lambda: bool(attempts), "it is handled")

            async def done() -> bool:
                return (await bus.stats())["a"].leased == 0

            await until(done, "it is settled")
            assert not task.done()
        assert attempts == [1]


async def test_a_lost_message_of_the_log_is_noticed(server: NATS) -> None:
    async with bus_at(server.url) as bus, bus_at(server.url) as other:
        mailbox, sender = await bus.register("a"), await other.register("b")
        for number in range(2):
            session = link_of(bus)._session
            waiting = asyncio.create_task(mailbox.receive(timeout=40))
            await asyncio.sleep(0.05)
            for subscription in session.client._subs.values():
                subscription._pending_bytes_limit = 1  # all is too much
            await sender.send("a", number)
            async with asyncio.timeout(10):
                message = await waiting
            assert message is not None
            assert link_of(bus)._session is not session


async def test_an_error_of_the_library_does_not_silence_it(
    server: NATS, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bus_at(server.url) as bus:
        mailbox = await bus.register("a")
        link, failures = link_of(bus), []
        news = link._news

        def fails_once(step: Any) -> None:
            if not failures:
                failures.append(step)
                raise RuntimeError("a mistake")
            news(step)

        monkeypatch.setattr(link, "_news", fails_once)
        async with asyncio.timeout(10):
            await mailbox.send("a", 1)
            await mailbox.send("a", 2)
        assert failures
        assert await contents(mailbox) == [1, 2]


# -- answers that nobody waits for -------------------------------------------------------


async def test_a_claim_cancelled_under_way_is_given_back_at_once(server: NATS) -> None:
    async with Way(server) as way, bus_at(way.url) as bus, bus_at(server.url) as other:
        mailbox, same = await bus.register("a"), await other.register("a")
        await mailbox.send("a", 1)
        for call in (mailbox.claim, mailbox.receive):
            assert await mailbox.message_count() == 1  # what was done elsewhere is known here
            before = way.held
            way.open.clear()
            claiming = asyncio.create_task(call(timeout=5))

            async def leased() -> bool:
                return (await other.stats())["a"].leased == 1

            await until(leased, "it is claimed")
            await until(lambda before=before: way.held > before, "its answer is under way")
            claiming.cancel()
            await asyncio.wait([claiming], timeout=1)
            assert claiming.cancelled()
            way.open.set()
            there = await claimed(same, timeout=5)
            assert there.attempt == 1
            await there.give_back()
        again = await claimed(mailbox, timeout=5)
        assert (again.message.content, again.attempt) == (1, 1)


async def test_after_a_cancelled_claim_the_next_one_gets_the_same_message(server: NATS) -> None:
    async with Way(server) as way, bus_at(way.url) as bus:
        mailbox = await bus.register("a")
        for number in range(3):
            await mailbox.send("a", number)
        before = way.held
        way.open.clear()
        claiming = asyncio.create_task(mailbox.claim(timeout=5))
        await until(lambda: way.held > before, "its answer is under way")
        claiming.cancel()
        following = asyncio.create_task(claimed(mailbox, timeout=5))
        await asyncio.sleep(0.05)
        way.open.set()
        delivery = await following
        assert (delivery.message.content, delivery.attempt) == (0, 1)


async def test_what_is_cancelled_at_any_moment_is_accounted_for(server: NATS) -> None:
    async with bus_at(server.url, retry=AT_ONCE) as bus, bus_at(server.url) as other:
        mailbox, bob = await bus.register("a"), await other.register("bob")
        handled: list[Any] = []

        async def handler(delivery: Delivery[AgentMessage]) -> None:
            handled.append(delivery.message.content)

        calls = [
            lambda number: mailbox.send("a", number, idempotency_key=str(number)),
            lambda number: mailbox.send("bob", number, idempotency_key=str(number)),
            lambda _: mailbox.claim(timeout=0.05),
            lambda number: mailbox.request("bob", number, timeout=0.05),
            lambda _: mailbox.peek(),
            lambda _: mailbox.message_count(),
            mailbox.broadcast,
            lambda _: bus.agents(),
            lambda _: bus.stats(),
            lambda number: bus.register(f"r{number % 3}"),
        ]
        async with serving(bob, handler, concurrency=4):
            for number in range(400):
                call = asyncio.create_task(calls[number % len(calls)](number))
                for _ in range(number % 13):
                    await asyncio.sleep(0)
                if number % 3 == 0:
                    await asyncio.sleep(0.001)
                call.cancel()
                await asyncio.wait([call], timeout=10)
                assert call.done()
                if call.cancelled():
                    continue
                assert not isinstance(call.exception(), StoreError)
                if call.exception() is None and isinstance(call.result(), Delivery):
                    await call.result().give_back()

            async def given_back() -> bool:
                return (await bus.stats())["a"].leased == 0

            await until(given_back, "no claim is held for nobody", 5)
            for number in (0, 1):
                for key in range(number, 400, len(calls)):
                    to = ("a", "bob")[number]
                    await mailbox.send(to, key, idempotency_key=str(key))
        assert not link_of(bus).lane.busy
        found = await contents(mailbox)
        keyed = set(range(0, 400, len(calls)))
        assert keyed <= set(found)
        assert len([each for each in found if each in keyed]) == len(keyed)


# -- processes, threads ------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_forked_child_cannot_use_the_bus(server: NATS) -> None:
    async with bus_at(server.url) as bus:
        mailbox = await bus.register("a")
        await mailbox.send("a", 1)
        store: Any = bus._core.store
        calls = [
            lambda: mailbox.send("a", 2),
            lambda: mailbox.receive(timeout=0),
            bus.agents,
            lambda: store.put((Turn(),)),
            store.agents,
            store.counts,
        ]
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for call in calls:
                    with pytest.raises(UsageError):
                        asyncio.run(call())
                code = 0
            finally:
                os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert status == 0
        assert await contents(mailbox) == [1]


async def test_what_nobody_answers_for_is_sent_again(
    server: NATS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader takes what was sent with it when it dies; the log is heard from others meanwhile."""
    publish = Client.publish
    taken: list[str] = []

    async def lost_once(client: Client, subject: str, *args: Any, **kwargs: Any) -> None:
        if subject.startswith("afk.log.") and not taken:
            taken.append(subject)
            return
        await publish(client, subject, *args, **kwargs)

    async with bus_at(server.url) as bus:
        mailbox = await bus.register("a")
        monkeypatch.setattr(Client, "publish", lost_once)
        await mailbox.send("a", "hello")
        assert taken
        assert await contents(mailbox) == ["hello"]


async def test_a_blocked_loop_keeps_its_message(server: NATS) -> None:
    lease = 1.5

    async def there() -> Any:
        async with bus_at(server.url) as other:
            mailbox = await other.register("a")
            at_work.set()
            return await mailbox.claim(timeout=lease * 3)

    at_work = threading.Event()
    async with bus_at(server.url) as bus:
        mailbox = await bus.register("a")
        await mailbox.send("a", 1)
        attempts = []
        waiting: list[asyncio.Task[Any]] = []

        async def handler(delivery: Delivery[AgentMessage]) -> None:
            attempts.append(delivery.attempt)
            waiting.append(asyncio.create_task(asyncio.to_thread(asyncio.run, there())))
            await until(at_work.is_set, "another waits")
            time.sleep(lease * 2.5)  # noqa: ASYNC251 - this is what is tested

        async with serving(mailbox, handler, lease=lease):
            await until(lambda: bool(waiting), "it is handled")
            assert await waiting[0] is None
        assert attempts == [1]
        assert keepers()
    assert not keepers()


async def test_a_loop_blocked_for_longer_than_the_server_waits_goes_on(tmp_path: Path) -> None:
    limits = 'write_deadline: "300ms"'
    with NATS(find("nats"), tmp_path, limits) as server:
        async with bus_at(server.url) as bus:
            mailbox = await bus.register("a")
            finished = threading.Event()

            async def elsewhere() -> None:
                async with bus_at(server.url) as other:
                    sender = await other.register("b")
                    for number in range(30):
                        await sender.send("a", [number, "x" * 500_000])

            def work() -> None:
                asyncio.run(elsewhere())
                finished.set()

            thread = threading.Thread(target=work)
            thread.start()
            finished.wait(20)  # the loop is blocked meanwhile
            thread.join()
            assert finished.is_set()
            found = [content[0] for content in await contents(mailbox)]
            assert found == list(range(30))


async def test_nothing_is_left_of_a_closed_bus(server: NATS) -> None:
    before = asyncio.all_tasks()
    names = log_of()
    for _ in range(5):
        async with bus_at(server.url) as bus:
            mailbox = await bus.register("a")
            assert await mailbox.receive(timeout=0.05) is None
            await mailbox.send("a", 1)
            async with await claimed(mailbox) as delivery:
                await delivery.hold(60)
                await until(lambda: bool(keepers()), "it is held")
    assert not keepers()
    assert asyncio.all_tasks() <= before
    async with jetstream(server.url) as js:

        async def alone() -> bool:
            connections = await asyncio.to_thread(server.monitor, "connz")
            consumers = await js._jsm.consumers_info(names.log)
            return len(connections["connections"]) == 1 and not consumers

        await until(alone, "the server has neither connections nor consumers left", 5)


@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_a_bus_closed_while_its_server_is_gone_leaves_nothing(server: NATS, how: str) -> None:
    before = asyncio.all_tasks()
    bus, other = bus_at(server.url, patience=1.0), bus_at(server.url, patience=1.0)
    mailbox, holder = await bus.register("a"), await other.register("b")
    waiting = asyncio.create_task(mailbox.receive(timeout=30))
    await asyncio.sleep(0.05)
    await holder.send("b", 1)
    delivery = await claimed(holder)
    await delivery.hold(60)
    getattr(server, how)()
    await asyncio.sleep(0.2)  # until all its threads stand still
    sending = asyncio.create_task(holder.send("b", 2))
    looking = asyncio.create_task(other.stats())
    await asyncio.sleep(0.2)
    async with asyncio.timeout(10):
        await asyncio.gather(bus.aclose(), other.aclose())
        await asyncio.wait([waiting, sending, looking])
    for task in (waiting, sending, looking):
        assert task.cancelled() or isinstance(task.exception(), StoreError | UsageError)
    assert not keepers()
    assert asyncio.all_tasks() <= before
