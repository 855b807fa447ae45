"""The output folder: the same mail twice leaves the same files."""

from __future__ import annotations

from pathlib import Path

import pytest

from afk.messaging.edges.demo.mail import Commission, Finding, Published, Source
from afk.messaging.edges.demo.shelf import Shelf, ShelfError

ONE = Finding(path="a.md", digest="1", title="A")
TWO = Finding(path="b.md", digest="2", title="B")
SOURCES = (Source("a.md", "1"), Source("b.md", "2"))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path / "out")
    shelf.open()
    return shelf


def files(shelf: Shelf) -> dict[str, bytes]:
    found = (path for path in shelf.root.rglob("*") if path.is_file())
    return {str(path.relative_to(shelf.root)): path.read_bytes() for path in found}


def test_the_desk_keeps_its_id_until_the_folder_is_deleted(tmp_path: Path) -> None:
    first = Shelf(tmp_path / "one").open()
    assert first == Shelf(tmp_path / "one").open()
    assert first != Shelf(tmp_path / "two").open()


def test_findings_are_there_once_all_are(shelf: Shelf) -> None:
    shelf.keep_finding(TWO)
    assert shelf.findings(SOURCES) is None
    shelf.keep_finding(ONE)
    assert shelf.findings(SOURCES) == (ONE, TWO)


def test_another_content_is_another_finding(shelf: Shelf) -> None:
    shelf.keep_finding(ONE)
    assert shelf.findings((Source("a.md", "changed"),)) is None


def test_what_is_kept_twice_is_kept_once(shelf: Shelf) -> None:
    def keep() -> dict[str, bytes]:
        shelf.keep_finding(ONE)
        shelf.keep_commission(Commission("e", "title", SOURCES))
        shelf.publish(Published("e", shelf.keep_report("e.md", "text"), 2))
        return files(shelf)

    assert keep() == keep()
    assert shelf.commissions() == [Commission("e", "title", SOURCES)]


def test_an_edition_is_published_as_long_as_its_report_is_there(shelf: Shelf) -> None:
    assert shelf.published("e") is None
    done = Published("e", shelf.keep_report("e.md", "text"), 1)
    shelf.publish(done)
    assert shelf.published("e") == done
    (shelf.root / done.report).unlink()
    with pytest.raises(ShelfError, match=r"reports/e\.md is gone: remove .* to start over"):
        shelf.published("e")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ShelfError, match=r"^cannot write to "):
        Shelf(tmp_path / "file").open()
