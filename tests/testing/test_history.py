"""What a process saw is there, whatever became of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from afk.messaging.testing.history import SERVER, History, digest, read

WRITER = """
import sys
from pathlib import Path
from afk.messaging.testing.history import History

history = History(Path(sys.argv[1]), "killed")
while True:
    call = history.call()
    history.note("send", "invoke", call=call, key=f"k{call}")
    print(call, flush=True)  # it is noted: from here on it must be there
"""


def test_what_was_noted_is_read(tmp_path: Path) -> None:
    history = History(tmp_path, "ann")
    before = time.monotonic()
    call = history.call()
    history.note("send", "invoke", call=call, key="k", sender="ann", mailbox="m", rank=0)
    history.note("send", call=call, id="a", duplicate=True)
    history.close()
    asked, end = read(tmp_path)
    assert (asked.kind, asked.phase, asked.process, asked.call) == ("send", "invoke", "ann", 1)
    assert (asked.key, asked.rank, asked.id) == ("k", 0, "")
    assert (end.phase, end.id, end.duplicate, end.call) == ("ok", "a", True, 1)
    assert before <= asked.at <= end.at <= time.monotonic()


def test_files_are_merged_in_the_order_of_time(tmp_path: Path) -> None:
    histories = [History(tmp_path, name) for name in ("b", "a")]
    for number in range(6):
        histories[number % 2].note("fault", process=SERVER, outcome=str(number))
    assert [event.outcome for event in read(tmp_path)] == list("012345")
    for history in histories:
        history.close()


def test_what_is_noted_may_name_its_own_time_and_process(tmp_path: Path) -> None:
    history = History(tmp_path, "harness")
    history.note("fault", process="bob", outcome="killed")
    history.note("redrive", id="a", at=1.5)
    history.close()
    redrive, fault = read(tmp_path)
    assert (redrive.at, redrive.process) == (1.5, "harness")
    assert fault.process == "bob"


def test_calls_have_numbers_of_their_own(tmp_path: Path) -> None:
    history = History(tmp_path, "ann")
    assert [history.call() for _ in range(3)] == [1, 2, 3]
    history.close()


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    history = History(tmp_path, "ann")
    history.note("claim", id="whole")
    history.note("claim", id="cut")
    history.close()
    path = tmp_path / "ann.jsonl"
    path.write_bytes(path.read_bytes()[:-3])
    assert [event.id for event in read(tmp_path)] == ["whole"]


def test_a_folder_without_histories_is_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no history")
    assert read(tmp_path) == []


def test_a_killed_process_loses_no_line(tmp_path: Path) -> None:
    command = sys.executable, "-c", WRITER, str(tmp_path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(200):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        said = 200 + sum(line.endswith("\n") for line in process.stdout)
    calls = [event.call for event in read(tmp_path)]
    assert calls == list(range(1, len(calls) + 1))
    assert said <= len(calls) <= said + 1


def test_the_digest_is_of_the_value() -> None:
    assert digest({"a": 1, "b": [None, "ü"]}) == digest({"b": [None, "ü"], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest("1") != digest(1)
    assert digest("\ud800")  # text that UTF-8 cannot have is content too
