"""Many processes on one SQLite file."""

from __future__ import annotations

from ...trial import Part, Trial
from .frozen import frozen_holder
from .race import race

PART = Part(
    name="contention",
    title="Contention on one SQLite file",
    about="""\
Eight processes with eight racers each send the same keys at the same time, every fifth key with
two contents: one send of each key is new, all that are accepted have one id, and who sent the other
content has `IdempotencyConflictError`. A round is a key. After every ten keys `stats()` has to
count exactly the keys sent. Meanwhile each process sends, claims and settles other messages, whose
history is judged, and a ninth process does so until it is frozen, with the lock if that can be met,
for up to a second, and killed; then `integrity_check` has to pass, and another takes its place.
Every error of the store in any of the eight is a failure: their patience is longer than any freeze.
So is an unfair share: Jain's index of the processes' sends below 0.9. The wait for the lock is
measured, apart where one was frozen.

In the second line a process is frozen while it has the file for itself, for longer than the
patience of the others, 1 s: then, and only then, their calls raise `StoreError`, within another
second; what they sent is not stored; and once the holder is killed the file is free.

One machine, one local file system, and the SQLite that Python comes with.""",
    trials=(
        Trial(
            "race, mixed load, kills",
            race,
            small=200,
            large={"": 10_000},
            batch=1000,
            stores=("sqlite",),
        ),
        Trial(
            "the holder of the lock is frozen",
            frozen_holder,
            small=2,
            large={"": 100},
            batch=20,
            stores=("sqlite",),
        ),
    ),
)
