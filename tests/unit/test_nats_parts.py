"""The parts of the NATS store that need no server."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from afk.messaging.errors import ConfigurationError
from afk.messaging.overdue import SPARE
from afk.messaging.store import Box, Claim, Refusal, Verdict
from afk.messaging.stores.nats import steps
from afk.messaging.stores.nats.renewal import Renewal
from afk.messaging.stores.nats.replica import FORGET_WRITERS, Replica, Step
from afk.messaging.stores.nats.rounds import Rounds
from afk.messaging.stores.nats.steps import Based, Bind, Part, Take, part, parts
from afk.messaging.stores.nats.stream import Names, position
from afk.messaging.stores.nats.url import place_at
from afk.messaging.testing.simulation import SimulatedLoop, simulate

SECOND = 10**9


class Log:
    """Has replicas read what is written to it."""

    def __init__(self, *replicas: Replica) -> None:
        self.replicas = replicas
        self.seq = 0
        self.mark = SECOND

    def write(self, message: bytes, length: int | None = None) -> list[Step | None]:
        self.seq += 1
        self.mark += SECOND
        size = len(message) if length is None else length
        return [replica.read(self.seq, self.mark, part(message), size) for replica in self.replicas]


def group(number: int, *ops: Any, writer: str = "w", most: int = 10_000) -> list[bytes]:
    return parts(writer, number, None, steps.packed(ops), most)


BIG = [Bind(Box(name=f"a{number}")) for number in range(50)]


def test_a_group_comes_back_from_its_parts() -> None:
    messages = group(7, *BIG, most=300)
    assert len(messages) > 3
    assert all(len(message) <= 300 for message in messages)
    found = [part(message) for message in messages]
    assert [each.index for each in found if each] == list(range(len(messages)))
    assert steps.unpacked(b"".join(each.ops for each in found if each)) == tuple(BIG)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"junk",
        msgspec.msgpack.encode([1, "w", 1, 1, 1, None, b""]),
        msgspec.msgpack.encode([1, "w", 0, 0, 1, None, b""]),
        msgspec.msgpack.encode([1, "w", 1, -1, 1, None, b""]),
        msgspec.msgpack.encode([1, "w", 1, 0, 1, "now", b""]),
    ],
)
def test_junk_is_no_part(message: bytes) -> None:
    assert part(message) is None


def test_another_version_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="version 9"):
        part(msgspec.msgpack.encode([9, "anything"]))


def test_parts_of_several_writers_interleave_and_repeat() -> None:
    replica = Replica()
    log = Log(replica)
    one, two = group(1, *BIG, most=400), group(1, *BIG[:20], writer="v", most=400)
    mixed = [*one[:2], two[0], one[0], *two[1:-1], *one[2:], two[-1], *one, *two]
    done = [step.writer for message in mixed for step in log.write(message) if step]
    assert done == ["w", "v"]
    assert len(replica.ledger.shelves) == 50
    assert (replica.last_of("w"), replica.last_of("v"), replica.last_of("nobody")) == (1, 1, 0)


def test_late_parts_of_a_group_that_was_given_up_are_passed_over() -> None:
    log = Log(Replica())
    old, new = group(1, *BIG, most=400), group(2, *BIG[:20], most=400)
    [[step]] = [
        each
        for message in (old[0], new[0], old[1], *new[1:], *old)
        for each in [log.write(message)]
        if each[0]
    ]
    assert step is not None
    assert step.number == 2


def test_a_silent_writer_is_forgotten() -> None:
    log = Log(Replica())
    log.write(group(5, Bind(Box(name="a")))[0])
    log.mark += int(FORGET_WRITERS + 1) * SECOND
    log.write(group(1, Bind(Box(name="b")), writer="v")[0])
    assert log.replicas[0].last_of("w") == 0


def test_a_replica_goes_on_from_its_pages() -> None:
    stayed = Replica()
    log = Log(stayed)
    for number in range(1, 6):
        log.write(group(number, Bind(Box(name=f"b{number}")))[0])
    log.write(group(6, *BIG, most=400)[0])  # the beginning of a group
    moved = Replica.of(list(stayed.pages()))
    log.replicas = (stayed, moved)
    size, length = stayed.size, 1000
    for message in (*group(6, *BIG, most=400)[1:], group(7, Based(size, length))[0]):
        log.write(message)
        assert moved.image in (0, stayed.image)
    assert list(moved.pages()) == list(stayed.pages())
    assert (moved.image, moved.based) == (stayed.image, stayed.based) == (length, size)


def test_an_image_is_due_whatever_crossed_the_line() -> None:
    replica = Replica()
    log = Log(replica)
    sweep = Take(Claim(mailbox="", limit=0))
    due = []
    for number in range(1, 200):
        log.write(b"junk", replica.least_log // 20)  # nobody's, and no group
        [step] = log.write(group(number, sweep)[0])
        assert step is not None
        if step.image_due:
            due.append(number)
    assert due == [20, 40, 60, 80, 100, 120, 140, 160, 180]


def test_an_operation_that_fails_fails_alone_and_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(Replica(), Replica())
    monkeypatch.setattr("afk.messaging.stores.nats.replica.log.exception", lambda _: None)
    bad = Bind(msgspec.structs.replace(Box(name="x"), name=[]))  # type: ignore[arg-type]
    for replica in log.replicas:
        step = replica.read(1, SECOND, Part(1, "w", 1, 0, 1, None, b""), 1, (bad, BIG[0]))
        assert step is not None
        assert isinstance(step.answers[0], Exception)
        assert step.answers[1] == BIG[0].box


def test_where_a_message_stands_in_either_form() -> None:
    assert position("$JS.ACK.stream.consumer.1.22.3.444.0") == (22, 444)
    assert position("$JS.ACK._.hash.stream.consumer.1.22.3.444.0.x") == (22, 444)


def test_a_long_name_is_cut_and_still_its_own() -> None:
    names = [Names("/" * 128), Names("/" * 127 + ".")]
    assert len({each.log for each in names}) == 2
    assert all(len(each.log) <= 255 for each in names)
    assert Names("a_b.c").log == "AFK-LOG_a_5fb_2ec"


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("nats://h", ["nats://h:4222"]),
        ("nats://", ["nats://localhost:4222"]),
        ("nats://h,i:1,[::1],[::1]:2", ["nats://h:4222", "nats://i:1"]),
        ("tls://u:p@h:7", ["tls://h:7"]),
    ],
)
def test_the_hosts_of_a_url(url: str, servers: list[str]) -> None:
    place = place_at(url)
    assert place.servers[: len(servers)] == servers
    assert "p@" not in place.shown


def test_a_place_does_not_show_its_password() -> None:
    place = place_at("nats://ann:s3cret@h")
    assert place.options["password"] == "s3cret"
    assert "s3cret" not in repr(place)


async def test_who_asks_while_a_question_is_under_way_waits_for_the_next() -> None:
    asked: list[asyncio.Event] = []

    async def ask() -> float:
        asked.append(asyncio.Event())
        await asked[-1].wait()
        return float(len(asked))

    rounds = Rounds(ask, patience=10)
    first = asyncio.create_task(rounds.next())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(asked) == 1
    later = [asyncio.create_task(rounds.next()) for _ in range(3)]
    await asyncio.sleep(0)
    later[0].cancel()
    asked[0].set()
    await first
    assert not any(each.done() for each in later[1:])
    await asyncio.sleep(0)
    asked[1].set()
    await asyncio.gather(*later[1:])
    assert len(asked) == 2
    await rounds.close()


async def question(ticks: int, blocked: float) -> None:
    """Asked of someone who answers at once, where the loop is blocked after so many ticks."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)

    async def ask() -> float:
        await asyncio.sleep(0.01)
        return 1.0

    rounds = Rounds(ask, patience=10)
    first, second = (asyncio.create_task(rounds.next()) for _ in range(2))
    for _ in range(ticks):
        await asyncio.sleep(0)
    third = asyncio.create_task(rounds.next())
    loop.block(blocked)
    await asyncio.gather(first, second, third)
    await rounds.close()


@pytest.mark.parametrize("blocked", [10.5, 30])
@pytest.mark.parametrize("ticks", range(4))
def test_a_question_is_not_over_before_it_was_asked(ticks: int, blocked: float) -> None:
    for seed in range(10):
        simulate(question(ticks, blocked), seed=seed)


async def silence() -> list[float]:
    """When those give up who ask one after the other and hear nothing."""
    loop = asyncio.get_running_loop()
    rounds = Rounds(loop.create_future, patience=10)
    ends = []

    async def ask(after: float) -> None:
        await asyncio.sleep(after)
        with pytest.raises(TimeoutError):
            await rounds.next()
        ends.append(loop.time())

    await asyncio.gather(*(ask(after) for after in (0, 1, 2, 30)))
    await rounds.close()
    return ends


def test_each_question_ends_in_its_time() -> None:
    expected = [10, 11, 11, 40]  # the second and the third ask the same
    assert simulate(silence(), seed=1) == pytest.approx(
        [each + SPARE for each in expected], abs=0.1
    )


def test_a_lease_that_could_not_be_renewed_is_told_once() -> None:
    renewal = Renewal(place_at("nats://h"), Names("a"))
    refused = Verdict(refusal=Refusal("lease_lost"))
    renewal._asked[9] = ["a", "b"]
    step = Step(renewal.writer, 9, (Verdict(), refused), (), False)
    assert renewal.lost(step) == ["b"]
    assert renewal.lost(step) == []
