"""The run: mailboxes, processes, one kill, one report."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from rich.console import Console

from afk.messaging import MessageBus
from afk.messaging.edges.demo import ending
from afk.messaging.edges.demo.folder import read_folder
from afk.messaging.edges.demo.mail import COORDINATOR, EDITOR, MAILBOXES, RESEARCHER, WRITER
from afk.messaging.edges.demo.processes import Staff
from afk.messaging.edges.demo.shelf import Shelf
from afk.messaging.edges.demo.story import Event, Line, Story, Worker
from afk.messaging.edges.demo.view import View
from afk.messaging.edges.demo.work import Job, open_bus

# Short, so that what a killed researcher held comes back soon; the lease of one that lives is
# renewed all the while, however long it takes.
LEASE = 2.0
TICK = 0.1
PATIENCE = 60.0

RESEARCHERS = 2


class DemoError(Exception):
    """The run cannot go on; the message is one line for the user."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where one run reads, writes and talks."""

    folder: Path
    out: Path
    url: str
    namespace: str
    workflow: str
    pace: float

    def job(self, agent: str, mailbox: str) -> Job:
        """The job of one process."""
        return Job(
            agent=agent,
            mailbox=mailbox,
            url=self.url,
            namespace=self.namespace,
            workflow=self.workflow,
            folder=str(self.folder),
            out=str(self.out),
            pace=self.pace,
            lease=LEASE,
        )


def prepare(folder: Path, *, url: str | None, out: Path, pace: float) -> Plan:
    """Check the folder, make the output folder; raises what is wrong with either, or the URL.

    Without a URL the store is one SQLite file in the output folder.
    """
    folder, out = folder.resolve(), out.resolve()
    read_folder(folder, leave_out=out)  # before anything is made or started
    store = url or f"sqlite:///{quote(out.as_posix())}/newsroom.db"
    if store.startswith("memory:"):
        raise DemoError("memory:// lives in one process, the newsroom's agents in several")
    # The workflow is the folder, not its content: a key stands for a message together with its
    # correlation id, so a file that is the same as before must keep both when another is added.
    workflow = "news-" + hashlib.sha256(str(folder).encode(errors="replace")).hexdigest()[:8]
    return Plan(folder, out, store, f"newsroom-{Shelf(out).open()}", workflow, pace)


async def run_demo(plan: Plan, console: Console) -> None:
    """Run the newsroom until the report is there, and tell how it came about."""
    began = time.monotonic()
    async with open_bus(plan.url, plan.namespace) as bus:
        for name in MAILBOXES:
            await bus.register(name)
        with View(console, f"newsroom: {plan.folder}") as view:
            async with Staff(Shelf(plan.out).log) as staff:
                story = await Newsroom(plan, bus, staff, view).work()
        trace = await bus.trace(plan.workflow)
    ending.tell(trace, story, plan.out, console)
    console.print(f"took {time.monotonic() - began:.1f} s", style="dim", highlight=False)


class Newsroom:
    """One run of a plan: starts the processes, hears them, kills one."""

    def __init__(self, plan: Plan, bus: MessageBus, staff: Staff, view: View) -> None:
        self._plan = plan
        self._bus = bus
        self._staff = staff
        self._view = view
        self._story = Story()

    async def work(self) -> Story:
        """Everybody at work until the report is published."""
        await self._retry_dead()
        for mailbox in (COORDINATOR, WRITER, EDITOR):
            await self._start(mailbox, mailbox)
        heard = looked = time.monotonic()
        async for event in self._staff.events(TICK):
            now = time.monotonic()
            if event:
                heard = now
                await self._hear(event)
            elif now - heard > PATIENCE:
                out = self._plan.out
                raise DemoError(
                    f"nothing happened for {PATIENCE:g} s; if something below {out} was deleted,"
                    f" remove it all to start over"
                )
            if now - looked >= TICK or self._story.report:
                looked = now
                await self._look()
            if self._story.report:
                break
        return self._story

    async def _hear(self, event: Event) -> None:
        for line in self._story.tell(event):
            self._view.say(line)
        if self._story.failure:
            raise DemoError(self._story.failure)
        if event.kind == "sent" and self._story.open:
            # Not before: what was done in an earlier run could not be told from what is done now.
            for _ in range(RESEARCHERS):
                await self._start_researcher()
        if victim := self._story.doomed():
            await self._kill(victim)

    async def _kill(self, victim: Worker) -> None:
        """kill -9 in mid-work, and a new process in the dead one's place."""
        await self._staff.kill(victim.name)
        # The dead cannot let go of a lease: if the store still shows it, it died in mid-work.
        held = await self._bus.status(victim.id) == "leased"
        self._view.say(self._story.kill(victim, lease=LEASE, held=held))
        name = await self._start_researcher()
        self._view.say(Line(f"{name} takes its place"))

    async def _start_researcher(self) -> str:
        name = f"{RESEARCHER}-{self._story.count(RESEARCHER) + 1}"
        await self._start(name, RESEARCHER)
        return name

    async def _start(self, agent: str, mailbox: str) -> None:
        pid = await self._staff.start(self._plan.job(agent, mailbox))
        self._story.join(Worker(agent, mailbox, pid))

    async def _look(self) -> None:
        stats = await self._bus.stats()
        self._view.show(self._story, stats)
        if any(box.dead for box in stats.values()):
            letter = (await self._bus.dead_letters(limit=1))[0]
            raise DemoError(f"mail for the {letter.agent} is {letter.reason}: {letter.error}")

    async def _retry_dead(self) -> None:
        """What failed in an earlier run is tried again: the cause may be gone."""
        letters = await self._bus.dead_letters(limit=1_000)
        if letters:
            count = await self._bus.redrive(*(letter.id for letter in letters))
            self._view.say(Line(f"tried again: {count} dead letters of an earlier run", "warn"))
