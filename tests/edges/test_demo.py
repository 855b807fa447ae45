"""`afk demo` from end to end, as a user runs it: processes, a kill, reruns, bad input."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

import afk.messaging
from afk.messaging import Trace, connect
from afk.messaging.edges.demo import report

AFK = [sys.executable, "-m", "afk.messaging.edges.cli"]
SOURCES = str(Path(afk.messaging.__file__).parents[2])
TOPICS = ("leases", "retries", "mailboxes", "keys", "traces", "stores")


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("AFK_")}
    return {**kept, "PYTHONPATH": SOURCES, "PYTHONIOENCODING": "utf-8", **more}


def afk_demo(*arguments: object, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AFK, "demo", *map(str, arguments)],
        cwd=cwd,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=50,
        check=False,
    )


def page(topic: str) -> str:
    return (
        f"# About {topic}\n\nThe library has {topic} so that no message is ever lost.\n"
        f"Whoever reads about {topic} learns what a store keeps and for how long.\n"
    )


def write_pages(folder: Path) -> None:
    folder.mkdir()
    for topic in TOPICS:
        (folder / f"{topic}.md").write_text(page(topic))
    (folder / "logo.png").write_bytes(b"\x89PNG\0\0")


class Ran(NamedTuple):
    output: str
    report: str
    trace: Trace


class Runs(NamedTuple):
    first: Ran
    second: Ran
    third: Ran


async def read_trace(out: Path) -> Trace:
    desk = (out / "desk.id").read_text()
    workflow = re.search(r"news-\w+", (out / "trace.txt").read_text())
    assert workflow
    async with connect(f"sqlite:///{out}/newsroom.db", namespace=f"newsroom-{desk}") as bus:
        return await bus.trace(workflow[0])


def run(cwd: Path) -> Ran:
    done = afk_demo("pages", "--pace", 0.2, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, ""), done
    name = re.search(r"^report: (.+)$", done.stdout, re.MULTILINE)
    assert name, done.stdout
    return Ran(
        done.stdout, Path(name[1]).read_text(), asyncio.run(read_trace(cwd / "newsroom-out"))
    )


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def runs(cwd: Path) -> Runs:
    """Three runs over one folder; before the third a file is added."""
    write_pages(cwd / "pages")
    first = run(cwd)
    second = run(cwd)
    (cwd / "pages" / "added.md").write_text(page("priorities"))
    return Runs(first, second, run(cwd))


def research(trace: Trace) -> list[str]:
    return [e.message.content["path"] for e in trace if e.message.recipient == "researcher"]


def test_each_file_is_in_the_report_exactly_once(runs: Runs) -> None:
    paths = sorted(f"{topic}.md" for topic in TOPICS)
    assert report.sections(runs.first.report) == paths
    assert report.review(runs.first.report) == ()
    assert "6 files in the report, each used exactly once" in runs.first.output
    assert "skipped logo.png: a binary file" in runs.first.output
    findings = [e for e in runs.first.trace if e.message.sender == "researcher"]
    assert sorted(e.message.content["path"] for e in findings) == paths


def test_one_researcher_is_killed_in_mid_work_and_its_file_comes_back(runs: Runs) -> None:
    killed = re.findall(r"killed with kill -9 while reading (\S+);", runs.first.output)
    again = re.findall(r"(\S+) is delivered again", runs.first.output)
    assert len(killed) == 1
    assert killed == again
    attempts = {
        e.message.content["path"]: e.attempts
        for e in runs.first.trace.entries
        if e.message.recipient == "researcher"
    }
    assert {path for path, count in attempts.items() if count > 1} == set(killed)


def test_the_trace_is_printed_as_a_tree_and_as_a_diagram(runs: Runs, cwd: Path) -> None:
    assert "sequenceDiagram" in runs.first.output
    assert (cwd / "newsroom-out" / "trace.mmd").read_text().startswith("sequenceDiagram")
    assert "coordinator" in (cwd / "newsroom-out" / "trace.txt").read_text()


def test_a_second_run_does_no_work_twice(runs: Runs) -> None:
    assert "nothing to do twice: 6 of 6 files were already done" in runs.second.output
    assert "kill -9" not in runs.second.output
    assert runs.second.report == runs.first.report
    assert [(e.message.id, e.attempts) for e in runs.second.trace] == [
        (e.message.id, e.attempts) for e in runs.first.trace
    ]


def test_an_added_file_is_the_only_new_work(runs: Runs) -> None:
    assert "not done twice: 6 of 7 files were already done; 1 to read" in runs.third.output
    assert Counter(research(runs.third.trace)) == Counter(
        ["added.md", *(f"{topic}.md" for topic in TOPICS)]
    )
    assert report.check(runs.third.report, research(runs.third.trace)) is None


def test_no_process_is_left(runs: Runs) -> None:
    pids = re.findall(r"process (\d+)", runs.first.output + runs.third.output)
    assert pids
    assert not [pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists()]


@pytest.mark.parametrize("server", ["redis_server", "postgres18", "nats_server"])
def test_it_runs_unchanged_on_a_server(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = f"{request.getfixturevalue(server).url}?namespace={uuid.uuid4().hex}"
    write_pages(tmp_path / "pages")
    first, second = [
        afk_demo("pages", "--pace", 0.1, cwd=tmp_path, AFK_MESSAGING_URL=url) for _ in range(2)
    ]
    assert (first.returncode, first.stderr) == (0, "")
    assert "6 files in the report, each used exactly once" in first.stdout
    assert "was killed in mid-work; its file was kept and delivered again" in first.stdout
    assert "nothing to do twice: 6 of 6 files were already done" in second.stdout
    assert not list(tmp_path.glob("**/*.db"))


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    for name, data in (("binary", b"\0\1\2"), ("latin", "déjà".encode("latin-1"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(data)
    (tmp_path / "file.txt").write_text("words")
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "file.txt").write_text("words")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "line", "code"),
    [
        ("nowhere", "no such folder: ", 2),
        ("file.txt", "not a folder: ", 2),
        ("empty", "nothing readable in ", 2),
        ("binary", "(file: a binary file)", 2),
        ("latin", "(file: not UTF-8)", 2),
        ("", "no docs folder here: name the folder to read", 2),
        ("good --out file.txt", "cannot write to ", 2),
        ("good --url memory://", "memory:// lives in one process", 1),
        ("good --url gopher://x", "gopher", 1),
        ("good --url sqlite:////proc/nowhere/x.db", "/proc/nowhere", 1),
    ],
)
def test_bad_input_gets_one_line(bad: Path, arguments: str, line: str, code: int) -> None:
    done = afk_demo(*arguments.split(), cwd=bad)
    assert (done.stdout, done.returncode) == ("", code)
    assert line in done.stderr
    assert done.stderr.startswith("afk demo: ")
    assert done.stderr.count("\n") == 1


def test_without_the_extra_the_command_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['cyclopts'] = None\n"
        "from afk.messaging.edges.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.stderr == 'the afk command needs: pip install "afk-messaging[cli]"\n'
    assert done.returncode == 1


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_on_a_terminal_there_is_a_live_view(tmp_path: Path) -> None:
    import pty

    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "only.md").write_text(page("leases"))
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*AFK, "demo", "pages", "--pace", "0.5"],
        cwd=tmp_path,
        env=environment(TERM="xterm-256color", COLUMNS="100", LINES="40"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        screen = read_all(ours)
    assert process.returncode == 0, screen
    assert "mailbox" in screen
    assert "1 of 1 files read" in screen
    assert "\x1b[1;31mresearcher" in screen  # the kill, in red


def read_all(terminal: int) -> str:
    """What is shown until the other side closes, which a pseudo-terminal tells as an error."""
    shown = b""
    try:
        while data := os.read(terminal, 65536):
            shown += data
    except OSError:
        pass
    finally:
        os.close(terminal)
    return shown.decode()


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_an_interrupted_run_is_taken_up_again(tmp_path: Path) -> None:
    write_pages(tmp_path / "pages")
    with subprocess.Popen(
        [*AFK, "demo", "pages", "--pace", "0.4"],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout
        next(line for line in process.stdout if " read" in line)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, errors = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert errors == "afk demo: stopped; run it again to go on from here\n"
    assert time.monotonic() - began < 10
    done = afk_demo("pages", "--pace", 0, cwd=tmp_path)
    assert done.returncode == 0, done
    assert "not done twice: " in done.stdout
    assert "6 files in the report, each used exactly once" in done.stdout
