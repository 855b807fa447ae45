"""The report: every file once, whatever it is called and whatever it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afk.messaging.edges.demo import report
from afk.messaging.edges.demo.mail import Finding, Term


def finding(path: str, *, words: int = 10, terms: dict[str, int] | None = None) -> Finding:
    chosen = terms or {"lease": 2}
    return Finding(
        path=path,
        digest="d",
        title=f"About {path}",
        headings=(f"About {path}", "More"),
        sentences=(f"A sentence of {path}.",),
        terms=tuple(Term(word, count, float(count)) for word, count in chosen.items()),
        word_count=words,
        sentence_count=1,
    )


THREE = [finding("b.md", words=30), finding("a.md", words=20), finding("c/d.md", words=40)]
PATHS = [f.path for f in THREE]


def test_a_draft_has_every_file_once_and_the_longest_first() -> None:
    text = report.draft("docs", THREE)
    assert text.startswith("# docs\n")
    assert report.sections(text) == ["c/d.md", "b.md", "a.md"]
    assert report.check(text, PATHS) is None


def test_an_editor_misses_four_things_in_a_draft() -> None:
    assert report.review(report.draft("docs", THREE)) == report.WISHES


def test_a_revision_meets_every_wish() -> None:
    text = report.revise("docs", THREE, report.WISHES)
    assert report.review(text) == ()
    assert report.sections(text) == ["a.md", "b.md", "c/d.md"]
    assert report.check(text, PATHS) is None
    assert "3 files with 90 words." in text
    assert "- **lease**: 6 times in 3 files" in text


@pytest.mark.parametrize("wish", report.WISHES)
def test_a_wish_changes_what_it_asks_for_and_nothing_else(wish: str) -> None:
    text = report.revise("docs", THREE, [wish])
    assert set(report.review(text)) == set(report.WISHES) - {wish}


def test_no_wish_gives_the_draft_again() -> None:
    assert report.revise("docs", THREE, []) == report.draft("docs", THREE)


def test_the_check_names_what_is_missing_and_what_is_there_twice() -> None:
    text = report.draft("docs", [THREE[0], THREE[0], THREE[1]])
    assert report.check(text, PATHS) == "missing: c/d.md; too many: b.md"


def test_themes_are_words_of_several_files() -> None:
    found = [
        finding("a", terms={"lease": 3, "only": 9}),
        finding("b", terms={"lease": 1, "store": 2}),
        finding("c", terms={"lease": 1, "store": 5}),
    ]
    assert report.themes(found) == [("lease", 3, 5), ("store", 2, 7)]
    assert "No term stands out" in report.revise("docs", found[:1], ["themes"])


def test_the_most_distinct_file_has_words_no_other_has() -> None:
    found = [
        finding("a", terms={"lease": 3}),
        finding("b", terms={"lease": 3}),
        finding("c", terms={"orchid": 3}),
    ]
    assert [f.path for f in report.distinct(found, 1)] == ["c"]


def test_foreign_text_cannot_write_the_report() -> None:
    wild = Finding(
        path="x`\n### `fake`",
        digest="d",
        title="### `fake`",
        sentences=("### `fake` <script> [x](y)",),
    )
    text = report.revise("## Summary", [wild], report.WISHES)
    assert report.check(text, [wild.path]) is None
    assert "<script>" not in text.replace("\\<", "")


NAMES = st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=8, unique=True)


@given(NAMES, st.sets(st.sampled_from(report.WISHES)))
def test_whatever_the_names_each_file_is_used_once(paths: list[str], wishes: set[str]) -> None:
    found = [finding(path) for path in paths]
    text = report.revise("title", found, sorted(wishes))
    assert report.check(text, paths) is None
    assert not wishes & set(report.review(text))


@given(NAMES)
def test_labels_differ_where_paths_differ(paths: list[str]) -> None:
    assert len({report.label(path) for path in paths}) == len(paths)
