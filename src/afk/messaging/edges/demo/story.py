"""What happens in the newsroom, told from what its agents say. Pure: events in, lines out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from afk.messaging.edges.demo.mail import RESEARCHER
from afk.messaging.edges.demo.texts import number_of

# Some work is done before the kill, so that a reader sees what is lost and what is not.
FILES_BEFORE_KILL = 3

Kind = Literal["ready", "skip", "sent", "start", "finish", "step", "published", "failed", "gone"]
Style = Literal["plain", "good", "warn", "bad", "quiet"]


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an agent's process says on its standard output, one JSON object a line.

    ready: it serves its mailbox. skip: a file that is not read, and why (text). sent: the mail
    for `total` files is out, `done` of which were done before. start and finish: of the work on
    one message (id, path, attempt). step: something worth a line. published: the report.
    failed: why the process ends early. gone: it has ended, how (said by its parent).
    """

    kind: Kind
    agent: str
    path: str = ""
    id: str = ""
    attempt: int = 0
    total: int = 0
    done: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One line for the user. `quiet` ones are left to the live view, where there is one."""

    text: str
    style: Style = "plain"


@dataclass(slots=True)
class Worker:
    """One process: what it works on now, if anything."""

    name: str
    mailbox: str
    pid: int
    state: Literal["starting", "idle", "working", "killed", "gone"] = "starting"
    path: str = ""
    id: str = ""
    attempt: int = 0


@dataclass(slots=True)
class Story:
    """The run so far."""

    workers: dict[str, Worker] = field(default_factory=dict)
    total: int = 0
    done_before: int = 0
    finished: set[str] = field(default_factory=set)
    started: int = 0
    killed: Worker | None = None
    redelivered: set[str] = field(default_factory=set)
    report: str = ""
    failure: str = ""

    @property
    def open(self) -> int:
        """How many files this run has to read."""
        return self.total - self.done_before

    @property
    def read(self) -> int:
        """How many files are read, now or in an earlier run."""
        return min(self.total, self.done_before + len(self.finished))

    def join(self, worker: Worker) -> None:
        """A process was started."""
        self.workers[worker.name] = worker

    def tell(self, event: Event) -> list[Line]:
        """What the event changes, and what there is to say about it."""
        worker = self.workers[event.agent]
        match event.kind:
            case "ready":
                worker.state = "idle"
            case "skip":
                return [Line(f"skipped {event.path}: {event.text}", "warn")]
            case "sent":
                return self._sent(event)
            case "start":
                return self._start(worker, event)
            case "finish":
                return self._finish(worker, event)
            case "step":
                return [Line(f"{event.agent}: {event.text}")]
            case "published":
                self.report = event.path
            case "failed":
                self.failure = f"{event.agent}: {event.text}"
            case "gone" if worker.state != "killed":
                worker.state = "gone"
                why = f"{event.agent} stopped unexpectedly ({event.text}); agents.log has more"
                self.failure = self.failure or why
        return []

    def count(self, mailbox: str) -> int:
        """How many processes have served the mailbox so far."""
        return sum(worker.mailbox == mailbox for worker in self.workers.values())

    def doomed(self) -> Worker | None:
        """Who is to be killed now: a researcher in mid-work, once, after some files."""
        if self.killed or self.started < min(FILES_BEFORE_KILL, self.open):
            return None
        busy = [
            w for w in self.workers.values() if w.state == "working" and w.mailbox == RESEARCHER
        ]
        # The one who began last has the most of its work before it. Ids are ordered by time.
        return max(busy, key=lambda worker: worker.id, default=None)

    def kill(self, worker: Worker, *, lease: float, held: bool) -> Line:
        """The worker was killed; `held`: the store still shows its message as leased."""
        worker.state = "killed"
        who = f"{worker.name} (process {worker.pid}) was killed with kill -9"
        if not held:
            return Line(f"{who} just after {worker.path} was done: too late, once more", "warn")
        self.killed = worker
        return Line(f"{who} while reading {worker.path}; its lease ends within {lease:g} s", "bad")

    def _sent(self, event: Event) -> list[Line]:
        self.total, self.done_before = event.total, event.done
        if not self.done_before:
            return [Line(f"coordinator: {number_of(self.total, 'file')} sent to the researchers")]
        before = f"{self.done_before} of {number_of(self.total, 'file')} were already done"
        if not self.open:
            return [Line(f"nothing to do twice: {before}", "good")]
        return [Line(f"not done twice: {before}; {self.open} to read", "good")]

    def _start(self, worker: Worker, event: Event) -> list[Line]:
        if worker.state == "killed":
            return []  # its last words, read after its end
        worker.state, worker.path, worker.id = "working", event.path, event.id
        worker.attempt = event.attempt
        if worker.mailbox != RESEARCHER:
            return []
        self.started += 1
        if event.attempt == 1:
            return []
        self.redelivered.add(event.path)
        text = f"{event.path} is delivered again, to {worker.name} (attempt {event.attempt})"
        return [Line(text, "warn")]

    def _finish(self, worker: Worker, event: Event) -> list[Line]:
        if worker.state != "killed":
            worker.state, worker.path, worker.id = "idle", "", ""
        if worker.mailbox != RESEARCHER:
            return []
        self.finished.add(event.path)
        return [Line(f"{worker.name}: {event.path} read", "quiet")]
