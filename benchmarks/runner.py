"""Measurements in processes of their own, and the rounds they take turns in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

Answer = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """An async generator, named `module:function` under `benchmarks`, and its arguments.

    under: a program that runs its process, and watches it.
    """

    target: str
    arguments: dict[str, Any] = field(default_factory=dict)
    under: tuple[str, ...] = ()

    def command(self) -> list[str]:
        """What starts its process."""
        target = f"benchmarks.{self.target}"
        worker = [*self.under, sys.executable, "-m", "benchmarks.worker"]
        return [*worker, target, json.dumps(self.arguments)]


class Process:
    """A job's process, which answers when asked."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._process = subprocess.Popen(
            job.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self) -> Answer:
        """Start the next answer, and wait for it."""
        self.start()
        return self.result()

    def start(self) -> None:
        """Let it make the next answer."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def result(self) -> Answer:
        """Wait for what was started."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        while self._job.under and line and not line.startswith(("{", "null")):  # a watcher's word
            line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self._job} failed, see above")
        answer: Answer = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise


def once(job: Job) -> Answer:
    """The first answer of a fresh process."""
    with Process(job) as process:
        return process.ask()


def rounds(jobs: Mapping[str, Job], count: int) -> dict[str, list[Answer]]:
    """Each job `count` times, in a fresh process each time, in turns."""
    answers: dict[str, list[Answer]] = {name: [] for name in jobs}
    for turn in range(count):
        for name, job in jobs.items():
            say(f"round {turn + 1} of {count}: {name}")
            answers[name].append(once(job))
    return answers


def say(text: str) -> None:
    """Progress, apart from what was found."""
    print(text, file=sys.stderr, flush=True)
