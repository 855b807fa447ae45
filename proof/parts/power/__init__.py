"""Power loss."""

from __future__ import annotations

from functools import partial
from random import Random

from ...trial import Ground, Outcome, Part, Run, Trial
from .cut import cut_control, cut_store
from .disk import disk, lacks
from .full import fill
from .sites import site

SIZE = 1024
"""MiB of a disk; what is not written takes no room."""


async def control(ground: Ground, rounds: int, seed: int) -> Outcome:
    """Append and sync."""
    outcome = Outcome()
    with disk(ground.folder / f"power-{seed}", SIZE) as drive:
        for number in range(rounds):
            rng = Random(f"{seed}-{number}")
            outcome.add(await cut_control(drive, ground.folder, rng, number))
    return outcome


async def cuts(ground: Ground, rounds: int, seed: int, *, weak: bool = False) -> Outcome:
    """Cut the power of a store, start it again, and look."""
    outcome = Outcome()
    with disk(ground.folder / f"power-{seed}", SIZE) as drive:
        place = site(ground, drive.place, weak)
        try:
            place.start()
            drive.sync()
            for number in range(rounds):
                rng = Random(f"{seed}-{number}")
                outcome.add(await cut_store(place, drive, ground.folder, rng, number))
        finally:
            place.kill()
    return outcome


def _trial(what: str, run: Run, small: int, large: int, *stores: str, weak: bool = False) -> Trial:
    return Trial(
        what=what,
        run=run,
        small=small,
        large={"": large},
        batch=50,
        stores=stores,
        expect_failures=weak,
        needs=lacks,
    )


SERVERS = ("redis", "postgres", "nats")
ON_DISK, WEAK, FULL = "durability disk", "control: not synced", "disk full"
without_sync = partial(cuts, weak=True)

PART = Part(
    name="power",
    title="Power loss",
    about="""\
An ext4 file system in a file, with the store's data in it, is stopped by the ioctl
`FS_IOC_SHUTDOWN` (no flush of its log) while up to 128 senders and four consumers that send on are
at work; all processes are killed, it is mounted again, which replays its log, and the store is
started on what is there. Every answer is noted on another disk, and counts if it came before the
ioctl. Then: every message that was accepted is there as it was sent; what was acked is done and
does not come again; a turn is whole, its ack and its three sends, or nothing of it is there; what
was in doubt, sent again under its key, is there once; what was in a consumer's hands comes back;
SQLite's file passes `integrity_check`.

The same for a file that is appended to and synced (it must lose nothing), and for each store set as
it often is (SQLite `synchronous=NORMAL`, Redis `everysec`, PostgreSQL `synchronous_commit=off`,
NATS as it comes): its bus must not say that its durability is `disk`, and it must lose something,
or the cuts would cut nothing; `lost` says how much.

In the last line the disk gets full, while eight send and claim: nothing that was accepted is lost,
and as soon as there is room again, and a server is started anew, everything works, what had failed
included. SQLite needs no new start, and who opens another file while there is no room has an error.

This is a kernel that stops, on ext4 over a file. It shows nothing of drives that lie about what
they have written, of sectors torn in two, or of other file systems; servers are single ones.""",
    trials=(
        _trial("control: append and sync", control, 2, 400, "sqlite"),
        _trial(ON_DISK, cuts, 3, 1000, "sqlite"),
        _trial(ON_DISK, cuts, 1, 200, *SERVERS),
        _trial(WEAK, without_sync, 3, 60, "sqlite", "postgres", weak=True),
        _trial(WEAK, without_sync, 2, 60, "redis", "nats", weak=True),
        _trial(FULL, fill, 1, 50, "sqlite"),
        _trial(FULL, fill, 0, 20, *SERVERS),
    ),
)
