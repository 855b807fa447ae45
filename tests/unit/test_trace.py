"""Traces: causal order whatever the causes say, and pictures that no text can break."""

from __future__ import annotations

import re
from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st

from afk.messaging import AgentMessage
from afk.messaging.lifecycle import State
from afk.messaging.messages import Context
from afk.messaging.trace import Entry, Trace


def entry(
    id: str, cause: str | None = None, *, content: Any = "hi", state: State = "done", **fields: Any
) -> Entry:
    names = {"sender": "ada", "recipient": "bob"} | fields
    kind: Any = fields.get("kind", "event")
    return Entry(
        id=id,
        agent=names["recipient"],
        message=AgentMessage(
            names["sender"],
            names["recipient"],
            content,
            id=id,
            causation_id=cause,
            _context=Context(kind=kind),
        ),
        state=state,
        attempts=1,
        accepted_at=1.0,
        leased_at=1.5,
        settled_at=2.0,
        cursor="0",
    )


def gone(id: str) -> Entry:
    """An entry whose body history has let go of."""
    return Entry(
        id=id,
        agent="bob",
        message=None,
        state="done",
        attempts=1,
        accepted_at=1.0,
        leased_at=None,
        settled_at=None,
        cursor="0",
    )


def order(*entries: Entry) -> list[str]:
    return [one.id for one in Trace("c", list(entries))]


# -- order -------------------------------------------------------------------------------


def test_each_message_comes_after_its_cause() -> None:
    assert order(entry("1"), entry("2", "1"), entry("3"), entry("4", "1")) == ["1", "2", "4", "3"]
    assert order(entry("3", "2"), entry("2", "1"), entry("1")) == ["1", "2", "3"]


def test_a_cause_that_is_not_there_is_no_cause() -> None:
    assert order(entry("2", "elsewhere"), entry("3", "2")) == ["2", "3"]


def test_circular_causes_are_shown_all_the_same() -> None:
    assert sorted(order(entry("1", "2"), entry("2", "1"))) == ["1", "2"]
    assert sorted(order(entry("1", "1"))) == ["1"]
    trace = Trace("c", [entry("0"), entry("1", "3"), entry("2", "1"), entry("3", "2")])
    assert len(trace) == 4
    assert str(trace).count("\n") == 4


links = st.lists(st.none() | st.integers(0, 12), max_size=12)


@given(links)
def test_whatever_the_causes_every_message_is_shown_once(causes: list[int | None]) -> None:
    entries = [
        entry(str(n), None if cause is None else str(cause)) for n, cause in enumerate(causes)
    ]
    trace = Trace("c", entries)
    ids = [one.id for one in trace]
    assert sorted(ids) == sorted(one.id for one in entries)
    assert len(trace) == len(entries)
    assert len(str(trace).splitlines()) == len(entries) + 1


@given(links)
def test_without_circles_causes_come_first(causes: list[int | None]) -> None:
    backwards = [
        cause if cause is not None and cause < n else None for n, cause in enumerate(causes)
    ]
    entries = [entry(str(n), None if c is None else str(c)) for n, c in enumerate(backwards)]
    ids = [one.id for one in Trace("c", entries[::-1])]
    for n, cause in enumerate(backwards):
        if cause is not None:
            assert ids.index(str(cause)) < ids.index(str(n))


def test_a_long_chain_needs_no_recursion() -> None:
    entries = [entry("0"), *(entry(str(n), str(n - 1)) for n in range(1, 3000))]
    trace = Trace("c", entries[::-1])
    assert [one.id for one in trace] == [str(n) for n in range(3000)]


def test_an_empty_trace() -> None:
    trace = Trace("c", [])
    assert (len(trace), list(trace)) == (0, [])
    assert str(trace) == "c: 0 message(s)"
    assert trace.mermaid() == "sequenceDiagram"


# -- as text -----------------------------------------------------------------------------


def test_the_tree() -> None:
    trace = Trace("c", [entry("1"), entry("2", "1", sender="bob", recipient="ada"), gone("3")])
    assert str(trace).splitlines() == [
        "c: 3 message(s)",
        "  ada -> bob  done, waited 0.500 s, worked 0.500 s  hi",
        "    bob -> ada  done, waited 0.500 s, worked 0.500 s  hi",
        "  ? -> bob  done  (gone)",
    ]


hostile = (
    st.text(
        st.sampled_from(
            "\x00\x07\x1b[31m\r\n\x85\u2028\u2029\u202e\u200b#;<>\"'&%`{}:()-=x \ud800ä"
        )
    )
    | st.text()
)


@given(hostile)
def test_the_tree_is_a_line_each_without_control_characters(text: str) -> None:
    shown = str(Trace("c", [entry("1", content=text), entry("2", content={"k": [text]})]))
    assert len(shown.split("\n")) == 3
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert max(map(len, shown.split("\n"))) < 200


@given(hostile)
def test_a_hostile_correlation_id_is_one_line(text: str) -> None:
    shown = str(Trace(text, [entry("1")]))
    assert len(shown.split("\n")) == 2
    assert all(c.isprintable() or c == "\n" for c in shown)


# -- as a picture ------------------------------------------------------------------------

LINE = re.compile(
    r"    (participant p\d+ as \S.*|p\d+--?>>p\d+: ?.*|Note over p\d+: [a-z]+(, attempt \d+)?)",
    re.DOTALL,
)


def test_the_picture() -> None:
    trace = Trace(
        "c",
        [
            entry("1", content={"q": 1}),
            entry("2", "1", sender="bob", recipient="ada", kind="response", content="yes"),
            entry("3", state="dead", recipient="kim"),
        ],
    )
    assert trace.mermaid().splitlines() == [
        "sequenceDiagram",
        "    participant p0 as ada",
        "    participant p1 as bob",
        "    participant p2 as kim",
        "    p0->>p1: {'q': 1}",
        "    p1-->>p0: yes",
        "    p0->>p2: hi",
        "    Note over p2: dead",
    ]


@given(hostile, st.sampled_from(get_args(State)))
def test_no_content_breaks_the_picture(text: str, state: State) -> None:
    lines = Trace("c", [entry("1", content=text, state=state)]).mermaid().split("\n")
    assert lines[0] == "sequenceDiagram"
    assert all(LINE.fullmatch(line) for line in lines[1:])
    assert len(lines) == (4 if state == "done" else 5)
    for line in lines[3:4]:
        shown = line.partition(": ")[2]
        without = re.sub(r"#\d+;", "", shown)
        assert not set(without) & set('#;<>"&%`')
        assert all(c.isprintable() for c in shown)


def test_no_name_breaks_the_picture() -> None:
    names = ["end", "a:b", "a->>b", "participant", "loop", "x@y/z-1.2", "Note", "p0"]
    entries = [entry(str(n), sender=name, recipient="bob") for n, name in enumerate(names)]
    lines = Trace("c", entries).mermaid().split("\n")
    assert all(LINE.fullmatch(line) for line in lines[1:])
    shown = [line.partition(" as ")[2] for line in lines if " as " in line]
    assert len(shown) == len({*names, "bob"})
    assert all("->" not in name for name in shown)
