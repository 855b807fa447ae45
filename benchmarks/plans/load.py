"""A workload next to what it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..figures import Goal
from ..runner import Job

BATCH = 100


@dataclass(frozen=True)
class Load:
    """A workload on one store: the library's job, the others' jobs by a key, goals by that key.

    titles: what stands behind a key.
    """

    name: str
    store: str
    ours: Job
    limits: dict[str, Job]
    goals: dict[str, Goal]
    titles: Mapping[str, str]
    unit: str = "msgs/s"

    def jobs(self) -> dict[str, Job]:
        """All of them, to be run in turns."""
        name = f"{self.store} {self.name}"
        limits = {f"{name}, {self.titles[key]}": job for key, job in self.limits.items()}
        return {name: self.ours, **limits}


def least(**limits: float) -> dict[str, Goal]:
    """At least so many times the other's."""
    return {key: Goal(">=", limit) for key, limit in limits.items()}


def most(**limits: float) -> dict[str, Goal]:
    """At most so many times the other's."""
    return {key: Goal("<=", limit) for key, limit in limits.items()}


def library(kind: str, store: str, **arguments: Any) -> Job:
    """A workload through afk.messaging."""
    return Job(f"loads.library:{kind}", {"store": store, **arguments})
