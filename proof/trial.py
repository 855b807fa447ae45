"""What a part of the proof is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from afk.messaging.testing.servers import NATS, Postgres, Server

Daemons = Server | Postgres | NATS


@dataclass(frozen=True)
class Ground:
    """Where a trial takes place: a store's server, kept for many rounds, and a folder.

    url: of the server, or of nothing more than a scheme (`sqlite`, `memory`): a round makes its
    own file in `folder`, or its own namespace. server: to be killed, paused or restarted; None
    where there is none.
    """

    store: str
    url: str
    folder: Path
    server: Daemons | None = None


@dataclass
class Outcome:
    """What some rounds brought: a sentence for each violation, figures to add up, times to list."""

    rounds: int = 0
    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, other: Outcome) -> None:
        """These rounds too."""
        self.rounds += other.rounds
        self.violations += other.violations
        self.counts.update(other.counts)  # `+=` would drop what is zero, such as the lost
        for name, times in other.seconds.items():
            self.seconds.setdefault(name, []).extend(times)


Run = Callable[[Ground, int, int], Awaitable[Outcome]]
"""`async def run(ground, rounds, seed)`: so many rounds; the same seed makes the same choices."""


def nothing() -> str:
    """What a trial needs that can run anywhere."""
    return ""


@dataclass(frozen=True)
class Trial:
    """A line of the report. small: the rounds that every test run makes, 0 if it makes none;
    large: those of the proof, by store (`""` for any other); batch: rounds after which the figures
    are saved."""

    what: str
    run: Run
    small: int
    large: dict[str, int]
    batch: int
    stores: tuple[str, ...] = ("sqlite", "redis", "postgres", "nats")
    expect_failures: bool = False
    """A control that must fail, or what injects the faults is broken."""
    needs: Callable[[], str] = nothing
    """Why it cannot run on this machine; "" if it can."""

    def size(self, store: str) -> int:
        """The rounds of the proof."""
        return self.large.get(store, self.large.get("", 0))


@dataclass(frozen=True)
class Part:
    """A way to try to break the promises: `PART` of a module of `proof.parts`."""

    name: str
    title: str
    about: str
    trials: tuple[Trial, ...]
