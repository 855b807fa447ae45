"""Reading a folder: text becomes documents, all else a reason, nothing a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afk.messaging.edges.demo import folder
from afk.messaging.edges.demo.folder import FolderError, Skipped, read_file, read_folder
from afk.messaging.edges.demo.mail import Document


def test_documents_come_in_path_order_with_their_content(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.txt").write_text("Two words.")
    (tmp_path / "a.md").write_text("# Title\n")
    reading = read_folder(tmp_path)
    assert [d.path for d in reading.documents] == ["a.md", "sub/b.txt"]
    assert reading.documents[1].text == "Two words."
    assert reading.skipped == ()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b" \n\t\n", "empty"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a binary file"),
        (b"\x01\x02\x03\x04 text", "a binary file"),
        ("déjà vu".encode("latin-1"), "not UTF-8"),
        ("utf-16 text".encode("utf-16"), "a binary file"),
        (b"x" * (folder.MAX_BYTES + 1), "larger than 300 kB"),
    ],
)
def test_what_is_no_text_is_skipped_with_a_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "odd").write_bytes(content)
    reading = read_folder(tmp_path)
    assert [d.path for d in reading.documents] == ["good.txt"]
    assert reading.skipped == (Skipped("odd", reason),)


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbfhello")
    assert read_folder(tmp_path).documents[0].text == "hello"


def test_hidden_files_and_the_output_are_left_out(tmp_path: Path) -> None:
    for name in ("a.txt", ".hidden", ".git/config", "out/report.md", "sub/out.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("words")
    reading = read_folder(tmp_path, leave_out=tmp_path / "out")
    assert [d.path for d in reading.documents] == ["a.txt", "sub/out.md"]


def test_links_that_lead_nowhere_and_pipes_do_not_stop_the_reading(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    skipped = read_folder(tmp_path).skipped
    assert {s.path: s.reason for s in skipped} == dict.fromkeys(
        ("broken", "pipe"), "not a regular file"
    )


def test_a_name_that_is_not_utf8_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("words")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert read_folder(tmp_path).skipped == (Skipped("?.txt", "its name is not UTF-8"),)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="no such folder"):
        read_folder(tmp_path / "none")
    (tmp_path / "file").write_text("words")
    with pytest.raises(FolderError, match="not a folder"):
        read_folder(tmp_path / "file")


def test_nothing_readable_names_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"^nothing readable in [^(]+$"):
        read_folder(tmp_path)
    for number in range(4):
        (tmp_path / f"{number}.bin").write_bytes(b"\0")
    with pytest.raises(FolderError) as caught:
        read_folder(tmp_path)
    assert "(0.bin: a binary file, 1.bin: a binary file, 2.bin: a binary file, ...)" in str(
        caught.value
    )


def test_too_many_files_ask_for_a_smaller_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "MAX_FILES", 2)
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("words")
    with pytest.raises(FolderError, match="more than 2 files"):
        read_folder(tmp_path)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_document_or_a_reason(data: bytes) -> None:
    found = folder._document("name", data)
    if isinstance(found, Document):
        assert found.text.encode() == data.removeprefix(b"\xef\xbb\xbf")
        assert found.text.strip()
    else:
        assert found.reason


def test_a_missing_file_is_a_reason(tmp_path: Path) -> None:
    assert read_file(tmp_path / "gone", "gone") == Skipped("gone", "not a regular file")
