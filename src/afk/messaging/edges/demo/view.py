"""What the user sees: a live view on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from afk.messaging import MailboxStats
from afk.messaging.edges.demo.story import Line, Story, Style, Worker

STYLES: dict[Style, str] = {
    "plain": "",
    "good": "green",
    "warn": "yellow",
    "bad": "bold red",
    "quiet": "dim",
}
_STATES = {"starting": "dim", "idle": "dim", "working": "cyan", "killed": "bold red", "gone": "red"}

Stats = Mapping[str, MailboxStats]


class View:
    """The screen of one run, a context manager: `show` what is, `say` what happens."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._began = time.monotonic()
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> View:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, line: Line) -> None:
        """One line that stays; above the live view, if there is one."""
        if not (self._live and line.style == "quiet"):
            self._console.print(Text(line.text, STYLES[line.style]), soft_wrap=True)

    def show(self, story: Story, stats: Stats) -> None:
        """The newsroom as it is now; without a live view nothing."""
        if self._live:
            seconds = time.monotonic() - self._began
            body = Group(agents(story), "", mailboxes(stats), "", progress(story, seconds))
            self._live.update(Panel(body, title=Text(self._title)), refresh=True)


def agents(story: Story) -> Table:
    """Every process, what it does and on what."""
    table = _table("agent", "process", "state", "working on")
    for worker in story.workers.values():
        style = _STATES[worker.state]
        table.add_row(
            worker.name, str(worker.pid), Text(worker.state, style), Text(_task(worker), style)
        )
    return table


def mailboxes(stats: Stats) -> Table:
    """What waits, what is being worked on, what is late or dead."""
    table = _table("mailbox", "waiting", "leased", "to be retried", "dead")
    for name, box in stats.items():
        counts = (box.pending.get("all", 0), box.leased, box.scheduled, box.dead)
        table.add_row(name, *(str(count) if count else "·" for count in counts))
    return table


def progress(story: Story, seconds: float) -> Table:
    """How many files are read, and the time."""
    table = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=max(story.total, 1), completed=story.read, width=40)
    table.add_row(bar, f"{story.read} of {story.total} files read", f"{seconds:.1f} s")
    return table


def _task(worker: Worker) -> str:
    again = f" (attempt {worker.attempt})" if worker.path and worker.attempt > 1 else ""
    return worker.path + again


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, expand=True)
    for number, column in enumerate(columns):
        table.add_column(column, header_style="bold", ratio=3 if number == len(columns) - 1 else 2)
    return table
