"""The commands of `afk`, as they are typed, on every store; what they print, and how they end."""

from __future__ import annotations

import asyncio
import io
import json
import re
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec import Raw

from afk.messaging import Delivery, MessageBus, RetryPolicy, connect
from afk.messaging.edges import cli
from afk.messaging.records import Record
from afk.messaging.store import Send, Turn

STORES = ["sqlite", "redis_server", "postgres18", "nats_server"]


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Afk:
    """The command line, in this process."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str], home: Path) -> None:
        self.url = url
        self.home = home
        self._capsys = capsys

    def __call__(self, *words: object) -> Said:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CONFIG_HOME", str(self.home / "config"))
            patch.setenv("XDG_STATE_HOME", str(self.home / "state"))
            patch.delenv("AFK_MESSAGING_URL", raising=False)
            if self.url:
                patch.setenv("AFK_MESSAGING_URL", self.url)
            code = 0
            try:
                cli.main([str(word) for word in words])
            except SystemExit as ended:
                code = int(ended.code or 0)
        return Said(code, *self._capsys.readouterr())

    def beside(self, work: Callable[[MessageBus], Awaitable[Any]]) -> Any:
        """What somebody else does on the same store."""

        async def working() -> Any:
            async with connect(self.url, retry=RetryPolicy(max_attempts=1)) as bus:
                return await work(bus)

        return asyncio.run(working())


@pytest.fixture
def nowhere(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Afk:
    return Afk("", capsys, tmp_path)


@pytest.fixture(params=STORES)
def afk(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Afk:
    """With two agents, ada and bob."""
    url = f"sqlite:///{tmp_path}/team.db"
    if request.param != "sqlite":
        place = request.getfixturevalue(request.param).url
        url = f"{place}?namespace={uuid.uuid4().hex}"
    command = Afk(url, capsys, tmp_path)

    async def two(bus: MessageBus) -> None:
        for name in ("ada", "bob"):
            await bus.register(name)

    command.beside(two)
    return command


def test_a_message_is_sent_looked_at_and_taken(afk: Afk) -> None:
    sent = afk("send", "bob", '{"n": [1, 2]}', "--parse", "--from", "ada", "--key", "k")
    assert (sent.code, sent.err) == (0, "")
    again = afk("send", "bob", '{"n": [1, 2]}', "--parse", "--from", "ada", "--key", "k", "--json")
    assert again.json == {
        "id": sent.out.strip(),
        "recipient": "bob",
        "duplicate": True,
        "durability": again.json["durability"],
    }
    seen = afk("receive", "bob", "--peek", "--json")
    assert seen.json["content"] == {"n": [1, 2]}
    assert "ada" in afk("wait", "bob", "--timeout", 20).out
    taken = afk("receive", "bob", "--ack", "--json")
    assert (taken.json["id"], taken.json["attempt"]) == (sent.out.strip(), 1)
    assert taken.json["token"] is None
    assert afk("receive", "bob", "--ack").code == 1
    shown = afk("show", sent.out.strip(), "--json").json
    assert (shown["state"], shown["attempts"], shown["reason"]) == ("done", 1, None)


def test_what_is_leased_is_settled_by_its_token(afk: Afk) -> None:
    first, second = [afk("send", "bob", text, "--from", "ada").out.strip() for text in "xy"]
    token = afk("receive", "bob", "--json").json["token"]
    assert afk("ack", token).code == 0
    late = afk("ack", token)
    assert late.code == 1
    assert len(late.err.splitlines()) == 1
    answered = afk("receive", "bob", "--json").json
    answer = afk("reply", answered["token"], "thanks", "--json").json
    assert (answer["sender"], answer["recipient"]) == ("bob", "ada")
    assert (answer["causation_id"], answered["id"]) == (second, second)
    assert [afk("show", each, "--json").json["state"] for each in (first, second)] == ["done"] * 2
    assert afk("receive", "ada", "--ack", "--json").json["content"] == "thanks"


def test_what_is_kept_of_a_message_s_attempts_is_shown(afk: Afk) -> None:
    sent = afk("send", "bob", "x", "--from", "ada").out.strip()
    assert "attempts: 0" in afk("show", sent).out

    async def fail(bus: MessageBus) -> None:
        for policy in (RetryPolicy(base=0.0), RetryPolicy(max_attempts=1)):
            async with connect(afk.url, retry=policy) as other:
                delivery = await other.mailbox("bob").claim(5)
                assert delivery is not None
                await delivery.nack(f"broken at {delivery.attempt}\x1b[2J")

    afk.beside(fail)
    buried = afk("show", sent).out
    for line in (
        r"state: dead\n",
        r"accepted: \S+ \S+\n",
        r"first claimed: \S+ \S+, after ",
        r"attempts: 2\n",
        r"last error: broken at 2\\x1b\[2J\n",
        r"settled: \S+ \S+, after ",
        r"reason: exhausted\n",
    ):
        assert re.search(line, buried), line
    afk("dead", "redrive", sent, "--yes")
    assert "attempts: 0, redriven 1 time(s)" in afk("show", sent).out
    afk("receive", "bob", "--ack")
    done = afk("show", sent, "--json").json
    assert (done["state"], done["attempts"], done["redrives"]) == ("done", 1, 1)
    assert (done["reason"], done["leased_at"] is None) == (None, False)
    assert done["error"] in {None, "broken at 2\x1b[2J"}


def test_not_even_a_name_reaches_the_terminal_raw(nowhere: Afk, tmp_path: Path) -> None:
    """A store's other writers may be anyone: what they left there is shown, never obeyed."""
    nowhere.url = f"sqlite:///{tmp_path}/team.db"
    evil = "\x1b[2J\r\n\x9b31m\u202e"
    record = Record(
        v=1, id="7", sender=evil, recipient="bob", content=Raw(b'"\\u001b[2J"'), timestamp=1.0
    )

    async def write(bus: MessageBus) -> None:
        bob = await bus.register("bob")
        await bob.send("bob", 1, correlation_id=evil, metadata={evil: evil}, thread_id=evil)
        send = Send(body=record, id="7", mailbox="bob", sender="ada", rank=0, chain=evil)
        await bus._core.store.put((Turn(sends=(send,)),))

    nowhere.beside(write)
    for words in (
        ("show", "7"),
        ("trace", "7"),
        ("trace", "7", "--mermaid"),
        ("wait", "bob"),
        ("receive", "bob", "--peek", "--limit", 2),
        ("receive", "bob"),
        ("dead", "list"),
        ("show", evil),
    ):
        said = nowhere(*words)
        assert all(line.isprintable() for line in (said.out + said.err).split("\n")), words


def test_an_answer_by_id_leaves_the_message(afk: Afk) -> None:
    sent = afk("send", "bob", "question", "--from", "ada").out.strip()
    afk("reply", sent, "answer")
    assert afk("receive", "ada", "--ack", "--json").json["causation_id"] == sent
    assert afk("show", sent, "--json").json["state"] == "pending"
    assert afk("show", sent, "--json").json["led_to"]


def test_a_request_waits_for_its_answer(afk: Afk) -> None:
    late = afk("request", "bob", "anyone?", "--timeout", 0.2)
    assert late.code == 1
    assert "no answer within 0.2 s" in late.err

    async def answering() -> Said:
        async def handler(delivery: Delivery[Any]) -> Any:
            return {"you said": delivery.message.content}

        async with connect(afk.url) as bus:
            worker = asyncio.create_task((await bus.register("bob")).serve(handler))
            said = await asyncio.to_thread(afk, "request", "bob", "hello", "--json")
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
            return said

    assert asyncio.run(answering()).json["content"] == {"you said": "hello"}


def test_a_broadcast_reaches_everyone_else(afk: Afk) -> None:
    assert afk("broadcast", "all hands", "--from", "ada").out == "sent to 1 agent(s)\n"
    [receipt] = afk("broadcast", "all hands", "--json").json[:1]
    assert receipt["recipient"] in {"ada", "bob", "*"}


def test_agents_and_sums(afk: Afk) -> None:
    afk("send", "bob", "one", "--priority", "urgent")
    afk("send", "bob", "two", "--delay", 100)
    ada, bob = afk("agents", "--json").lines
    assert (ada["agent"], ada["pending"]) == ("ada", 0)
    assert (bob["pending"], bob["scheduled"], bob["by_priority"]["urgent"]) == (1, 1, 1)
    assert re.search(r"bob +1 +0 +1 +0", afk("agents").out)
    sums = afk("stats", "--json").json
    assert (sums["agents"], sums["pending"], sums["scheduled"]) == (2, 1, 1)


def test_a_chain_is_traced(afk: Afk) -> None:
    root = afk("send", "bob", "start", "--from", "ada").out.strip()
    afk("reply", afk("receive", "bob", "--json").json["token"], "go on")
    chain = afk("trace", root, "--json").json
    assert chain["states"] == {"done": 1, "pending": 1}
    assert [each["message"]["content"] for each in chain["messages"]] == ["start", "go on"]
    assert chain["messages"][0]["waiting"] >= 0
    assert "ada -> bob" in afk("trace", root).out
    assert afk("trace", root, "--mermaid").out.startswith("sequenceDiagram")
    assert afk("trace", "nobody").code == 1


def test_the_tail_of_what_comes(afk: Afk) -> None:
    ids = [afk("send", "bob", n).out.strip() for n in "abc"]
    afk("send", "ada", "other")
    lines = afk("tail", "--from-start", "--no-follow", "--agent", "bob", "--json").lines
    assert [line["id"] for line in lines] == ids
    assert afk("tail", "--no-follow").out == ""


def bury(afk: Afk, *contents: Any) -> None:
    async def work(bus: MessageBus) -> None:
        bob = bus.mailbox("bob")
        for content in contents:
            await bob.send("bob", content)
            delivery = await bob.claim(5)
            assert delivery is not None
            await delivery.nack("broken")

    afk.beside(work)


def test_the_dead_are_listed_and_mended(afk: Afk) -> None:
    bury(afk, {"customer": 7}, {"customer": 8}, "x")
    listed = afk("dead", "list", "--json").lines
    assert [each["reason"] for each in listed] == ["exhausted"] * 3
    assert afk("dead", "list", "--agent", "ada").out == "no dead letters\n"
    assert "broken" in afk("dead", "list").out
    assert "error: broken" in afk("dead", "show", listed[0]["id"]).out
    some = "--where", "content.customer=7"
    tried = afk("dead", "redrive", *some, "--dry-run", "--json").json
    assert tried == {"action": "redrive", "matched": 1, "changed": 0}
    done = afk("dead", "redrive", *some, "--yes", "--json").json
    assert done == {"action": "redrive", "matched": 1, "changed": 1}
    assert afk("receive", "bob", "--ack", "--json").json["content"] == {"customer": 7}
    assert afk("dead", "discard", listed[2]["id"], "--yes").code == 0
    assert len(afk("dead", "list", "--since", "1h", "--json").lines) == 1
    trail = (afk.home / "state" / "afk" / "audit.jsonl").read_text().splitlines()
    assert [json.loads(line)["action"] for line in trail] == ["redrive", "discard"]
    assert afk.url.partition("?")[0].partition("://")[2].rpartition("@")[2] in trail[0]


def test_nothing_is_destroyed_by_mistake(afk: Afk, monkeypatch: pytest.MonkeyPatch) -> None:
    bury(afk, "x")
    assert afk("dead", "discard").code == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    asked = afk("dead", "discard", "--all")
    assert (asked.code, "--yes" in asked.err) == (2, True)
    assert len(afk("dead", "list", "--json").lines) == 1


def test_no_control_character_reaches_the_terminal(afk: Afk) -> None:
    hostile = "\x1b[2J\x07\u202eevil\x9b31m"
    afk("send", "bob", hostile, "--from", "ada", "--correlation", "c")
    outputs = [afk("tail", "--from-start", "--no-follow"), afk("trace", "c")]
    outputs.append(afk("receive", "bob", "--peek"))
    bury(afk, hostile)
    outputs += [afk("dead", "list"), afk("receive", "bob")]
    for said in outputs:
        assert "evil" in said.out
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", said.out)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("send", "--to"),
        ("send nobody hi", "nobody"),
        ("receive nobody", "nobody"),
        ("receive bob --ack --peek", "choose one"),
        ("send bob @/no/such/file", "/no/such/file"),
        ("send bob {] --parse", "JSON"),
        ("send bob hi --ttl -1", "ttl"),
        ("trace x --mermaid --json", "choose one"),
        ("dead list --since never", "--since"),
        ("dead list --where x=1", "--where"),
        ("ack nonsense", "nonsense"),
        ("agents --url gopher://x", "gopher"),
        ("agents --url memory://", "memory"),
        ("agents --context nope", "nope"),
        ("sned", "sned"),
        ("agents --nope", "--nope"),
    ],
)
def test_a_mistake_is_one_line(
    words: str, line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    url = "" if "--context" in words else f"sqlite:///{tmp_path}/team.db"
    said = Afk(url, capsys, tmp_path)(*words.split())
    assert said.out == ""
    assert said.code in (1, 2)
    assert line in said.err
    assert len(said.err.splitlines()) == 1


def test_a_store_has_a_name(nowhere: Afk, tmp_path: Path) -> None:
    assert "which store?" in nowhere("agents").err
    url = f"sqlite:///{tmp_path}/a.db"
    nowhere("context", "set", "team", url)
    nowhere("context", "set", "other", f"sqlite:///{tmp_path}/b.db")
    assert nowhere("context", "use", "team").code == 0
    assert nowhere("context", "list").out == "  other\n* team\n"
    assert nowhere("agents").out == "no agents\n"
    assert (tmp_path / "a.db").exists()
    assert not (tmp_path / "b.db").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFK_CONTEXT", "other")
        assert nowhere("agents").out == "no agents\n"
        assert (tmp_path / "b.db").exists()
        (tmp_path / "b.db").unlink()
    nowhere.url = "sqlite:////nowhere/c.db"  # what is typed goes before the environment
    assert nowhere("agents", "--context", "team").out == "no agents\n"
    assert nowhere("agents").code == 2
    nowhere.url = ""
    file = tmp_path / "config" / "afk" / "contexts.json"
    assert file.stat().st_mode & 0o077 == 0
    nowhere("context", "remove", "team")
    assert nowhere("context", "list", "--json").json == {"current": None, "contexts": ["other"]}
    file.write_text("[")
    assert "cannot be read" in nowhere("agents").err


def test_standard_input_and_files_are_contents(
    afk: Afk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe\n"))
    afk("send", "bob", "-")
    (tmp_path / "note.txt").write_text("from a file")
    afk("send", "bob", f"@{tmp_path}/note.txt")
    peeked = afk("receive", "bob", "--peek", "--limit", 5, "--json").lines
    assert [each["content"] for each in peeked] == ["from a pipe\n", "from a file"]


def test_the_store_is_measured_and_left_as_it_was(afk: Afk) -> None:
    figures = afk("bench", "--count", 20, "--json").json
    assert figures["one_at_a_time"] > 0
    assert figures["hundred_at_a_time"] > 0
    assert 0 < figures["request_p50_ms"] <= figures["request_p99_ms"]
    assert [each["agent"] for each in afk("agents", "--json").lines] == ["ada", "bob"]
    assert afk("dead", "list").out == "no dead letters\n"
