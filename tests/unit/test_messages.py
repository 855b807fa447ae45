"""Ids, names, priorities, and the two views as plain values."""

from __future__ import annotations

import os
import re
import string
import threading
import time
from multiprocessing import get_context
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from afk.messaging import AgentMessage, InternalA2AEnvelope, InvalidMessageError
from afk.messaging.messages import PRIORITIES, check_name, new_id, rank

# -- ids ---------------------------------------------------------------------------------


def test_ids_are_32_hex_digits_with_the_time_first() -> None:
    before = time.time_ns() // 1_000_000
    made = new_id()
    after = time.time_ns() // 1_000_000
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert before <= int(made[:12], 16) <= after


def test_ids_of_one_process_are_unique_and_in_order() -> None:
    ids = [new_id() for _ in range(50_000)]
    assert ids == sorted(set(ids))


def test_ids_stay_in_order_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert new_id() > first


def test_ids_of_many_threads_are_unique() -> None:
    ids: list[list[str]] = [[] for _ in range(8)]

    def fill(own: list[str]) -> None:
        own.extend(new_id() for _ in range(5_000))

    threads = [threading.Thread(target=fill, args=(own,)) for own in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({made for own in ids for made in own}) == 8 * 5_000


def _send_ids(pipe: Any) -> None:
    pipe.send([new_id() for _ in range(1000)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forking with threads, from 3.12
def test_ids_are_unique_after_a_fork() -> None:
    context: Any = get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(4)]
    children = [context.Process(target=_send_ids, args=(end,)) for _, end in pipes]
    with new_id._lock:  # as another thread may hold it just then
        for child in children:
            child.start()
    own = [new_id() for _ in range(1000)]
    assert all(receiving.poll(10) for receiving, _ in pipes), "a child is stuck"
    ids = set(own).union(*(receiving.recv() for receiving, _ in pipes))
    for child in children:
        child.join(timeout=10)
    for pipe in pipes:
        for end in pipe:
            end.close()
    assert len(ids) == 5 * 1000


# -- names and priorities ----------------------------------------------------------------

FIRST = string.ascii_letters + string.digits + "_:/@"
REST = FIRST + ".-"


@given(st.sampled_from(FIRST), st.text(REST, max_size=127))
def test_what_a_name_may_be(first: str, rest: str) -> None:
    assert check_name(first + rest, "name") == first + rest


@given(st.text())
def test_what_a_name_may_not_be(name: str) -> None:
    good = 0 < len(name) <= 128 and name[0] in FIRST and all(c in REST for c in name)
    if not good:
        with pytest.raises(InvalidMessageError, match="recipient"):
            check_name(name, "recipient")


@pytest.mark.parametrize(
    "name", [None, 5, b"ada", ["ada"], "x" * 129, "ada\n", "\uff21da", "\u0661"]
)
def test_what_is_no_name(name: object) -> None:
    with pytest.raises(InvalidMessageError, match="name"):
        check_name(name, "name")


def test_priorities_are_ranked() -> None:
    assert [rank(priority) for priority in PRIORITIES] == [0, 1, 2, 3]
    for wrong in ("", "Urgent", None, 0, ["low"]):
        with pytest.raises(InvalidMessageError, match="priority"):
            rank(wrong)


# -- letters -----------------------------------------------------------------------------


def test_a_letter_has_defaults() -> None:
    before = time.time()
    letter = AgentMessage("ada", "bob", "hi")
    assert (letter.priority, letter.metadata, letter.correlation_id) == ("normal", {}, None)
    assert (letter.causation_id, letter.thread_id, letter.hops) == (None, "", 0)
    assert before <= letter.timestamp <= time.time()
    assert letter.id != AgentMessage("ada", "bob", "hi").id


def test_metadata_is_not_shared_between_letters() -> None:
    one, other = AgentMessage("a", "b", 1), AgentMessage("a", "b", 1)
    one.metadata["x"] = 1
    assert other.metadata == {}


def test_letters_are_compared_by_what_they_show() -> None:
    letter = AgentMessage("ada", "bob", {"n": 1})
    assert letter == replace(letter)
    assert letter != replace(letter, content={"n": 2})
    assert letter != replace(letter, id="other")
    assert letter != "hi"
    with pytest.raises(TypeError):
        hash(letter)


def test_a_letter_shows_itself() -> None:
    shown = repr(AgentMessage("ada", "bob", "hi", id="1"))
    assert shown.startswith("AgentMessage(sender='ada', recipient='bob', content='hi', id='1'")
    assert "_context" not in shown


def test_a_reply_follows_from_its_letter() -> None:
    letter = AgentMessage("ada", "bob", "q", priority="high", metadata={"m": 1})
    answer = letter.reply("a")
    assert (answer.sender, answer.recipient, answer.content) == ("bob", "ada", "a")
    assert (answer.correlation_id, answer.causation_id) == (letter.id, letter.id)
    assert (answer.hops, answer.metadata) == (1, {})
    further = answer.reply("b")
    assert (further.correlation_id, further.causation_id) == (letter.id, answer.id)
    assert further.hops == 2
    assert letter.reply("a", recipient="kim", priority="low").recipient == "kim"


# -- envelopes ---------------------------------------------------------------------------


def envelope(**fields: Any) -> InternalA2AEnvelope:
    names = ("run_id", "thread_id", "conversation_id", "correlation_id", "idempotency_key")
    ids: dict[str, Any] = {name: name for name in names}
    ids |= {"message_type": "request", "source_agent": "ada", "target_agent": "bob"}
    return InternalA2AEnvelope(**(ids | fields))


def test_an_envelope_has_defaults() -> None:
    before = time.time_ns() // 1_000_000
    one = envelope()
    assert (one.payload, one.metadata, one.causation_id) == ({}, {}, None)
    assert (one.priority, one.hops) == ("normal", 0)
    assert before <= one.timestamp_ms <= time.time_ns() // 1_000_000
    assert one.id != envelope().id
    assert one.id not in repr(one)


def test_a_response_keeps_the_ids() -> None:
    question = envelope(priority="urgent")
    answer = question.reply({"a": 1})
    assert answer.message_type == "response"
    assert (answer.source_agent, answer.target_agent) == ("bob", "ada")
    for name in ("run_id", "thread_id", "conversation_id", "correlation_id", "priority"):
        assert getattr(answer, name) == getattr(question, name)
    assert answer.causation_id == question.id
    assert len({answer.id, question.id}) == len({answer.idempotency_key, "idempotency_key"}) == 2
    assert question.reply({}, metadata={"m": 1}).metadata == {"m": 1}


def test_messages_are_frozen() -> None:
    for message, name in ((AgentMessage("a", "b", 1), "content"), (envelope(), "payload")):
        with pytest.raises(AttributeError):
            setattr(message, name, 2)
