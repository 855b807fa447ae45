"""What a text says, extracted: headings, sentences and terms."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from afk.messaging.edges.demo import texts
from afk.messaging.edges.demo.mail import Document, Finding, pack, unpack

PAGE = """---
title: front matter
---
# Leases

A lease keeps a message with *one* consumer until it ends. When a consumer crashes, the
store gives the message to [another consumer](other.md).

```python
# not a heading
code = "is no prose, whatever the code says here"
```

| a table | is no prose |

Renewal
-------

- The worker renews the lease while the handler runs. Short leases find crashed consumers sooner.
- Too short.

## Limits ##

The weather was nice that day in general.
"""


def test_headings_in_both_forms_and_none_from_code() -> None:
    assert texts.headings(PAGE) == ["Leases", "Renewal", "Limits"]


def test_sentences_are_whole_and_free_of_markup() -> None:
    found = texts.split_sentences(texts.prose_lines(PAGE))
    assert found == [
        "A lease keeps a message with one consumer until it ends.",
        "When a consumer crashes, the store gives the message to another consumer.",
        "The worker renews the lease while the handler runs.",
        "Short leases find crashed consumers sooner.",
        "The weather was nice that day in general.",
    ]


def test_a_finding_prefers_what_the_text_is_about() -> None:
    finding = texts.research(Document(path="leases.md", digest="0", text=PAGE))
    assert finding.title == "Leases"
    assert {term.word for term in finding.terms[:3]} >= {"lease", "consumer"}
    assert len(finding.sentences) == texts.TOP_SENTENCES
    assert "The weather was nice that day in general." not in finding.sentences
    assert finding.sentence_count == 5


def test_a_word_in_few_sentences_weighs_more_than_one_in_all() -> None:
    weights = texts.term_weights(["common rare rare", "common word", "common other"])
    assert weights["rare"] > weights["common"]


def test_tokens_drop_stop_words_numbers_and_short_words() -> None:
    assert texts.tokenise("The lease is 30 s; it's the worker's at-least-once LEASE.") == [
        "lease",
        "it's",
        "worker's",
        "at-least-once",
        "lease",
    ]


def test_a_file_without_sentences_speaks_through_its_lines() -> None:
    finding = texts.research(Document(path="list.txt", digest="0", text="apples\n\npears\n42\n"))
    assert finding.sentences == ("apples", "pears")
    assert finding.title == "list.txt"


def test_abbreviations_in_lower_case_do_not_end_a_sentence() -> None:
    line = "Stores, e.g. the one in memory, keep every message they accept."
    assert texts.split_sentences([line]) == [line]


def test_repeated_sentences_are_quoted_once() -> None:
    same = "The very same sentence stands here again."
    assert texts.telling([same, same], texts.term_weights([same, same])) == [same]


TEXT = st.text(max_size=600) | st.lists(
    st.sampled_from(["# A head", "===", "---", "```", "- item of a list", "", "Words. More Words."])
).map("\n".join)


@given(TEXT)
def test_any_text_gives_one_bounded_finding_that_travels_unchanged(text: str) -> None:
    document = Document(path="p", digest="d", text=text)
    finding = texts.research(document)
    assert finding == texts.research(document)
    assert len(finding.sentences) <= texts.TOP_SENTENCES
    assert all(sentence and "\n" not in sentence for sentence in finding.sentences)
    assert all(term.count > 0 for term in finding.terms)
    wire = msgspec.json.decode(msgspec.json.encode(pack(finding)))
    assert unpack(wire, Finding) == finding


@given(st.lists(st.text(alphabet="ab c.", max_size=40), max_size=12), st.integers(1, 5))
def test_telling_sentences_are_some_of_the_text_in_its_order(lines: list[str], top: int) -> None:
    weights = texts.term_weights(lines)
    chosen = texts.telling(lines, weights, top)
    places = [lines.index(sentence) for sentence in chosen]
    assert len(chosen) == min(top, len(set(lines)))
    assert places == sorted(places)
