"""Every row of docs/reference/bad-input.md: what you did, what you get, what it says.

A case is a function under `@bad(...)` with the row's three cells; `…` in the last one stands
for text that differs from time to time. The table and the cases must be the same set.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import math
import os
import re
import sqlite3
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from afk.messaging import (
    AgentMailbox,
    AgentMessage,
    ConfigurationError,
    Delivery,
    IdempotencyConflictError,
    InMemoryA2ADeliveryStore,
    InternalA2AEnvelope,
    InternalA2AProtocol,
    InvalidMessageError,
    LeaseLostError,
    MailboxFullError,
    MessageBus,
    Retry,
    RetryPolicy,
    SQLiteMessageBus,
    UnknownAgentError,
    UsageError,
    connect,
)
from afk.messaging.edges import cli, otel
from afk.messaging.stores.sqlite import file
from afk.messaging.testing import FakeClock

TABLE = Path(__file__).parents[1] / "docs" / "reference" / "bad-input.md"


class Place:
    """A team on a memory bus, and a folder: what a case does its wrong to."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.clock = FakeClock()
        store = InMemoryA2ADeliveryStore(clock=self.clock)
        self.bus = MessageBus(store, max_bytes=1000, lease=10)

    async def team(self) -> tuple[AgentMailbox, AgentMailbox]:
        """ada and writer; writer's mailbox holds two messages."""
        return await self.bus.register("ada"), await self.bus.register("writer", capacity=2)

    async def delivery(self) -> Delivery[AgentMessage]:
        """A message in ada's hands."""
        ada, _ = await self.team()
        await ada.send("ada", "hi")
        delivery = await ada.claim(timeout=0)
        assert delivery is not None
        return delivery


class Case(NamedTuple):
    did: str
    error: type[BaseException]
    says: str
    do: Callable[[Place], Awaitable[Any]]


CASES: list[Case] = []
Do = Callable[[Place], Awaitable[Any]]


def bad(did: str, error: type[BaseException], says: str) -> Callable[[Do], Do]:
    def add(do: Do) -> Do:
        CASES.append(Case(did, error, says, do))
        return do

    return add


# -- names -------------------------------------------------------------------------------


@bad(
    "send to a name nobody registered",
    UnknownAgentError,
    "no agent is registered as 'writr'; did you mean 'writer'?",
)
async def _(place: Place) -> None:
    ada, _ = await place.team()
    await ada.send("writr", "hi")


@bad("receive for a name nobody registered", UnknownAgentError, "no agent is registered as 'kim'")
async def _(place: Place) -> None:
    kim = await place.bus.register("kim")
    await place.bus.unregister("kim")
    await kim.receive(timeout=0)


@bad("unregister a name nobody registered", UnknownAgentError, "no agent is registered as 'kim'")
async def _(place: Place) -> None:
    await place.bus.unregister("kim")


NAME_RULE = (
    "is not an agent name; use 1-128 ASCII letters, digits and . _ - : / @, not starting with . or"
    " -"
)


@bad("register `two words`", InvalidMessageError, f"name: 'two words' {NAME_RULE}")
async def _(place: Place) -> None:
    await place.bus.register("two words")


@bad("send to an empty name", InvalidMessageError, f"recipient: '' {NAME_RULE}")
async def _(place: Place) -> None:
    ada, _ = await place.team()
    await ada.send("", "hi")


@bad(
    "register `#news`",
    InvalidMessageError,
    "name: '#news': names starting with '#' are reserved for topics",
)
async def _(place: Place) -> None:
    await place.bus.register("#news")


@bad(
    "deliver a message to `*`",
    InvalidMessageError,
    "recipient: '*' is for broadcast(); deliver() takes one agent",
)
async def _(place: Place) -> None:
    await place.bus.deliver(AgentMessage("ada", "*", "hi"))


@bad(
    "reply to a broadcast that no mailbox read",
    InvalidMessageError,
    "sender: this broadcast was not read from a mailbox, so no agent can answer it",
)
async def _(place: Place) -> None:
    AgentMessage("ada", "*", "hi").reply("hello")


@bad(
    "register an existing mailbox with `ordered=True`",
    ConfigurationError,
    "'ada' was created without ordered=True; unregister it first, or use another name",
)
async def _(place: Place) -> None:
    await place.team()
    await place.bus.register("ada", ordered=True)


@bad(
    "register with `capacity=0`",
    ConfigurationError,
    "capacity: 0 is not a number of messages from 1",
)
async def _(place: Place) -> None:
    await place.bus.register("ada", capacity=0)


# -- what is sent ------------------------------------------------------------------------


async def send(place: Place, content: Any, **options: Any) -> None:
    ada, _ = await place.team()
    await ada.send("writer", content, **options)


@bad(
    "send what is not JSON",
    InvalidMessageError,
    "content['when']: datetime is not JSON; send None, bool, int, float, str, list or dict",
)
async def _(place: Place) -> None:
    await send(place, {"when": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)})


@bad("send NaN", InvalidMessageError, "content[1]: nan is not JSON; send a string or None")
async def _(place: Place) -> None:
    await send(place, [0, math.nan])


@bad(
    "send an integer out of range",
    InvalidMessageError,
    "content: integers go from -2**63 to 2**64-1",
)
async def _(place: Place) -> None:
    await send(place, 2**64)


@bad(
    "send a dict with a key that is no string",
    InvalidMessageError,
    "content: key 1 is not a string",
)
async def _(place: Place) -> None:
    await send(place, {1: "one"})


@bad("send a lone surrogate", InvalidMessageError, "content: a lone surrogate is not valid text")
async def _(place: Place) -> None:
    await send(place, "\ud800")


@bad(
    "send more than `max_bytes`",
    InvalidMessageError,
    "content: the message is larger than the 1000 bytes that 'writer' takes; send a reference, or"
    " raise max_bytes",
)
async def _(place: Place) -> None:
    await send(place, "x" * 1000)


@bad(
    "send what is nested past 100 levels",
    InvalidMessageError,
    "content[0]…: nested deeper than 100 levels",
)
async def _(place: Place) -> None:
    value: list[Any] = []
    for _ in range(200):
        value = [value]
    await send(place, value)


@bad(
    "send with an unknown priority",
    InvalidMessageError,
    "priority: 'asap' is not one of low, normal, high, urgent",
)
async def _(place: Place) -> None:
    await send(place, "hi", priority="asap")


@bad(
    "send with reserved metadata",
    InvalidMessageError,
    "metadata: 'afk.hops': keys starting with 'afk.' are reserved",
)
async def _(place: Place) -> None:
    await send(place, "hi", metadata={"afk.hops": 0})


@bad(
    "send with metadata that is no dict",
    InvalidMessageError,
    "metadata: a dict is needed, not list",
)
async def _(place: Place) -> None:
    await send(place, "hi", metadata=["a"])


@bad("send with a negative ttl", InvalidMessageError, "ttl: -1 is not zero or more seconds")
async def _(place: Place) -> None:
    await send(place, "hi", ttl=-1)


@bad("send with a negative delay", InvalidMessageError, "delay: -0.5 is not zero or more seconds")
async def _(place: Place) -> None:
    await send(place, "hi", delay=-0.5)


@bad("send with a ttl that is no number", InvalidMessageError, "ttl: seconds are needed, not '5m'")
async def _(place: Place) -> None:
    await send(place, "hi", ttl="5m")


@bad(
    "send with a key past 512 characters",
    InvalidMessageError,
    "idempotency_key: 513 characters; at most 512 are kept",
)
async def _(place: Place) -> None:
    await send(place, "hi", idempotency_key="k" * 513)


@bad("send with an option there is not", TypeError, "Unexpected keyword argument 'prio'")
async def _(place: Place) -> None:
    await send(place, "hi", prio="high")


@bad(
    "send an envelope whose payload is no dict",
    InvalidMessageError,
    "payload: a dict is needed, not str",
)
async def _(place: Place) -> None:
    await envelope(place, payload="hi")


@bad(
    "send an envelope of another type",
    InvalidMessageError,
    "message_type: 'question' is not one of request, response, event",
)
async def _(place: Place) -> None:
    await envelope(place, message_type="question")


async def envelope(place: Place, **fields: Any) -> None:
    names = ("run_id", "thread_id", "conversation_id", "correlation_id", "idempotency_key")
    ids: dict[str, Any] = dict.fromkeys(names, "x")
    ids |= {"message_type": "event", "source_agent": "ada", "target_agent": "ada"}
    await InternalA2AProtocol(place.bus).send(InternalA2AEnvelope(**(ids | fields)))


# -- keys and room -----------------------------------------------------------------------


@bad(
    "send another body under a known key",
    IdempotencyConflictError,
    "the key or id of this message already names …, which has another body, key or recipient; use a"
    " new key for a new message",
)
async def _(place: Place) -> None:
    await send(place, 1, idempotency_key="k")
    await send(place, 2, idempotency_key="k")


@bad(
    "deliver another message under a known id",
    IdempotencyConflictError,
    "the key or id of this message already names m1, which has another body, key or recipient; use"
    " a new key for a new message",
)
async def _(place: Place) -> None:
    await place.team()
    await place.bus.deliver(AgentMessage("ada", "writer", 1, id="m1"))
    await place.bus.deliver(AgentMessage("ada", "ada", 1, id="m1"))


@bad(
    "send to a full mailbox",
    MailboxFullError,
    "the mailbox of 'writer' is full (2 messages, the last tenth for urgent ones); try later, or"
    " register it with a larger capacity",
)
async def _(place: Place) -> None:
    for n in range(3):
        await send(place, n)


# -- settling ----------------------------------------------------------------------------


@bad("settle a delivery twice", LeaseLostError, "this delivery was settled before")
async def _(place: Place) -> None:
    delivery = await place.delivery()
    await delivery.ack()
    await delivery.nack("no")


@bad("nack with a negative delay", InvalidMessageError, "delay: -1 is not zero or more seconds")
async def _(place: Place) -> None:
    await (await place.delivery()).nack(delay=-1)


@bad("claim with a lease of no time", ConfigurationError, "lease: 0 is below 0.001")
async def _(place: Place) -> None:
    ada, _ = await place.team()
    await ada.claim(timeout=0, lease=0)


@bad("extend a lease by what is no time", ConfigurationError, "seconds: nan is not finite")
async def _(place: Place) -> None:
    await (await place.delivery()).extend(math.nan)


@bad("hold a lease for no number", ConfigurationError, "seconds: a number is needed, not '60'")
async def _(place: Place) -> None:
    await (await place.delivery()).hold("60")  # type: ignore[arg-type]


@bad("retry after what is no time", InvalidMessageError, "delay: seconds are needed, not 'soon'")
async def _(place: Place) -> None:
    raise Retry("soon")  # type: ignore[arg-type]


@bad(
    "settle a delivery that another consumer has by now",
    LeaseLostError,
    "this delivery was settled before, or its lease went to another",
)
async def _(place: Place) -> None:
    delivery = await place.delivery()
    place.clock.advance(60)
    ada, _ = await place.team()
    assert await ada.claim(timeout=0) is not None
    await delivery.ack()


@bad(
    "send through a delivery that is settled",
    LeaseLostError,
    "this delivery was settled before; nothing more leaves with it",
)
async def _(place: Place) -> None:
    delivery = await place.delivery()
    await delivery.ack()
    await delivery.send("ada", "too late")


@bad("resume what is no token", LeaseLostError, "'17' is not a delivery token")
async def _(place: Place) -> None:
    ada, _ = await place.team()
    await ada.resume("17")


@bad(
    "serve with what is no function",
    ConfigurationError,
    "handler: an async function is needed, not 'me'",
)
async def _(place: Place) -> None:
    ada, _ = await place.team()
    handler: Any = "me"
    await ada.serve(handler)


@bad("serve with `concurrency=0`", ConfigurationError, "concurrency: 0 is below 1")
async def _(place: Place) -> None:
    await serve(place, concurrency=0)


@bad("serve with a lease of no time", ConfigurationError, "lease: 0 is below 0.001")
async def _(place: Place) -> None:
    await serve(place, lease=0)


async def serve(place: Place, **options: Any) -> None:
    async def handler(delivery: Delivery[AgentMessage]) -> None: ...

    ada, _ = await place.team()
    await ada.serve(handler, **options)


@bad("retry at most zero times", ValueError, "max_attempts must be at least 1, not 0")
async def _(_: Place) -> None:
    RetryPolicy(max_attempts=0)


@bad(
    "open a transaction where there is none",
    UsageError,
    "this store has no transactions for handlers; use sqlite:// (or postgresql://), or make the"
    " effect idempotent",
)
async def _(place: Place) -> None:
    async with (await place.delivery()).transaction():
        pass


@bad(
    "call the bus inside `delivery.transaction()`",
    UsageError,
    "a bus call inside delivery.transaction() would wait for that transaction; use the delivery's"
    " own send, or call it after the block",
)
async def _(place: Place) -> None:
    async with SQLiteMessageBus(place.folder / "team.db") as bus:
        ada = await bus.register("ada")
        await ada.send("ada", "hi")
        delivery = await ada.claim(timeout=1)
        assert delivery is not None
        async with delivery.transaction():
            await ada.send("ada", "now")


# -- looking and mending -----------------------------------------------------------------


@bad(
    "redrive without ids or agent",
    ConfigurationError,
    "redrive: name ids, or agent= for all dead letters of one agent",
)
async def _(place: Place) -> None:
    await place.bus.redrive()


@bad(
    "discard without ids or agent",
    ConfigurationError,
    "discard: name ids, or agent= for all dead letters of one agent",
)
async def _(place: Place) -> None:
    await place.bus.discard()


@bad(
    "list messages in a state there is not",
    ConfigurationError,
    "state: 'open' is not one of scheduled, pending, leased, done, dead, cancelled",
)
async def _(place: Place) -> None:
    state: Any = "open"
    await place.bus.messages(state=state)


@bad(
    "list dead letters of a reason there is not",
    ConfigurationError,
    "reason: 'died' is not one of exhausted, rejected, expired, hops, full, undecodable,"
    " undeliverable, unregistered",
)
async def _(place: Place) -> None:
    reason: Any = "died"
    await place.bus.dead_letters(reason=reason)


@bad(
    "go on after what is no cursor",
    ConfigurationError,
    "after: 'yesterday' is not a cursor; pass the `cursor` of the last one you saw",
)
async def _(place: Place) -> None:
    await place.bus.messages(after="yesterday")


# -- a bus -------------------------------------------------------------------------------


@bad("use a bus after close", UsageError, "this bus is closed; connect again")
async def _(place: Place) -> None:
    await place.bus.aclose()
    await place.bus.agents()


@bad(
    "use a bus from another event loop",
    UsageError,
    "this bus belongs to another event loop, or to the process this one was forked from; make one"
    " bus per loop",
)
async def _(place: Place) -> None:
    await asyncio.to_thread(asyncio.run, place.bus.agents())
    await place.bus.agents()


@bad("make a bus over what is no store", ConfigurationError, "store: dict is no delivery store; …")
async def _(_: Place) -> None:
    store: Any = {}
    MessageBus(store)


@bad(
    "connect to a scheme there is not",
    ConfigurationError,
    "'kafka': no such store; use memory://, memory://name, sqlite:///path, redis://host,"
    " postgresql://host/database or nats://host",
)
async def _(_: Place) -> None:
    connect("kafka://localhost")


@bad(
    "connect to a file without its scheme",
    ConfigurationError,
    "'team.db': no such store; use memory://, memory://name, sqlite:///path, redis://host,"
    " postgresql://host/database or nats://host",
)
async def _(_: Place) -> None:
    connect("team.db")


@bad(
    "connect with a slash too few",
    ConfigurationError,
    "'sqlite://team.db': name a file as sqlite:///relative.db or sqlite:////absolute.db",
)
async def _(_: Place) -> None:
    connect("sqlite://team.db")


@bad(
    "connect with an unknown option in the URL",
    ConfigurationError,
    "unknown option 'leas' in the URL; did you mean 'lease'?",
)
async def _(_: Place) -> None:
    connect("memory://?leas=5")


@bad(
    "connect with an option in the URL that is no number",
    ConfigurationError,
    "lease: 'long' is not a number",
)
async def _(_: Place) -> None:
    connect("memory://?lease=long")


@bad(
    "connect with an unknown option",
    ConfigurationError,
    "unknown option leas; the options are retry, lease, …",
)
async def _(_: Place) -> None:
    connect("memory://", leas=5)


@bad("connect with a lease of no time", ConfigurationError, "lease: 0 is below 0.001")
async def _(_: Place) -> None:
    connect("memory://", lease=0)


@bad(
    "connect with a capacity that is no number",
    ConfigurationError,
    "capacity: a number is needed, not '10'",
)
async def _(_: Place) -> None:
    connect("memory://", capacity="10")


@bad(
    "connect with a retry that is no policy",
    ConfigurationError,
    "retry: a RetryPolicy is needed, not 3",
)
async def _(_: Place) -> None:
    connect("memory://", retry=3)


@bad(
    "ask a memory bus for durability",
    ConfigurationError,
    "durability: memory:// keeps nothing; use sqlite:///path",
)
async def _(_: Place) -> None:
    connect("memory://?durability=disk")


@bad(
    "connect to `memory://team` outside of an event loop",
    ConfigurationError,
    "memory://team is shared within an event loop: connect inside of it",
)
async def _(_: Place) -> None:
    await asyncio.to_thread(connect, "memory://team")


@bad(
    "run `afk` without the `cli` extra",
    SystemExit,
    'the afk command needs: pip install "afk-messaging[cli]"',
)
async def _(place: Place) -> None:
    place.monkeypatch.setattr(cli, "NEEDED", ("no_such_package",))
    cli.main()


@bad(
    "instrument a bus without the `otel` extra",
    ConfigurationError,
    "otel needs the package opentelemetry: pip install 'afk-messaging[otel]'",
)
async def _(place: Place) -> None:
    place.monkeypatch.setitem(sys.modules, "opentelemetry", None)
    place.monkeypatch.delitem(sys.modules, "afk.messaging.edges.otel.setup", raising=False)
    otel.instrument(connect("memory://"))


# -- a file ------------------------------------------------------------------------------


async def open_file(path: Path, **options: Any) -> None:
    async with SQLiteMessageBus(path, **options) as bus:
        await bus.agents()


@bad(
    "open a directory as a database",
    ConfigurationError,
    "… is a directory; name a file in it, such as …/team.db",
)
async def _(place: Place) -> None:
    await open_file(place.folder)


@bad(
    "open a database in a folder that is not there",
    ConfigurationError,
    "…/nowhere is not a directory; create it first",
)
async def _(place: Place) -> None:
    await open_file(place.folder / "nowhere" / "team.db")


@bad(
    "open a file that is no database",
    ConfigurationError,
    "…/notes.txt is not an SQLite database; name another file",
)
async def _(place: Place) -> None:
    path = place.folder / "notes.txt"
    path.write_text("Dear diary, " * 100)
    await open_file(path)


@bad(
    "open a database that a newer version wrote",
    ConfigurationError,
    "…/team.db was written by a newer afk-messaging (schema 99, this one knows …); upgrade the"
    " package",
)
async def _(place: Place) -> None:
    path = place.folder / "team.db"
    await open_file(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO afk_schema VALUES (99)")
        db.commit()
    await open_file(path)


def make_read_only(path: Path) -> None:
    path.chmod(0o444)


@contextlib.contextmanager
def someones_folder(mode: int) -> Iterator[Path]:
    """A folder of these permissions, without root's rights that none of them holds back."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(mode)
        if root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o700)


@bad(
    "open a database in a folder you may not write to",
    ConfigurationError,
    "…/team.db cannot be created: Permission denied",
)
async def _(_: Place) -> None:
    if sys.platform == "win32":
        pytest.skip("folders have no such permission here")
    with someones_folder(0o555) as folder:
        await open_file(folder / "team.db")


@bad(
    "open a database you may not write to",
    ConfigurationError,
    "…/team.db cannot be opened for writing (…); check its and its folder's permissions",
)
async def _(_: Place) -> None:
    if sys.platform == "win32":
        pytest.skip("files have no such permission here")
    with someones_folder(0o777) as folder:
        await open_file(folder / "team.db")
        make_read_only(folder / "team.db")
        await open_file(folder / "team.db")


@bad(
    "open a database on a network filesystem",
    ConfigurationError,
    "…/team.db is on a network filesystem (nfs4), where SQLite's write-ahead log is not safe; use a"
    " local disk, or a server store for several machines",
)
async def _(place: Place) -> None:
    mounts = f"/dev/sda1 / ext4 rw 0 0\nserver:/home {place.folder.resolve()} nfs4 rw 0 0\n"
    place.monkeypatch.setattr(file, "_mounts", lambda: mounts)
    await open_file(place.folder / "team.db")


@bad(
    "ask a file for `durability=memory`",
    ConfigurationError,
    "durability: 'memory' is not for a file; use disk or process (a file outlives its process), or"
    " memory:// for messages that need not last",
)
async def _(place: Place) -> None:
    await open_file(place.folder / "team.db", durability="memory")


@bad(
    "connect with a namespace that is no name",
    ConfigurationError,
    f"namespace: 'two words' {NAME_RULE}",
)
async def _(place: Place) -> None:
    connect(f"sqlite:///{place.folder}/team.db", namespace="two words")


# -- the table ---------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.did)
async def test_bad_input(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch)
    try:
        with pytest.raises(case.error) as raised:
            await case.do(place)
    finally:
        with contextlib.suppress(UsageError):
            await place.bus.aclose()
    assert raised.type is case.error
    pattern = ".*".join(map(re.escape, case.says.split("…")))
    assert re.fullmatch(pattern, str(raised.value), re.DOTALL), str(raised.value)


def row_of(case: Case) -> str:
    says = case.says.replace("*", r"\*")  # else Markdown takes it for emphasis
    return f"| {case.did} | `{case.error.__name__}` | {says} |"


def test_the_table_and_the_cases_are_the_same() -> None:
    rows = [line for line in TABLE.read_text("utf-8").splitlines() if line.startswith("| ")]
    assert [row for row in rows if row not in HEAD] == [row_of(case) for case in CASES]


HEAD = ("| What you did | What you get | What it says |",)


if __name__ == "__main__":  # python tests/test_bad_input.py: the rows, to paste into the table
    print("\n".join(map(row_of, CASES)))
