"""The trial: slips of one store, and the library as it is."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from tempfile import TemporaryDirectory

from ...trial import Ground, Outcome
from .bench import SMOKE, results, target
from .mutant import Mutant, copy
from .seeded import MUTANTS

AT_ONCE = 2


async def caught(ground: Ground, rounds: int, seed: int) -> Outcome:
    """So many of the store's mutants, and their checks on the library as it is."""
    mine = [mutant for mutant in MUTANTS if mutant.store == ground.store]
    chosen = random.Random(seed).sample(mine, rounds)
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(mutant: Mutant) -> str | None:
        async with limit:
            return await survived(ground, mutant)

    outcome = Outcome(rounds)
    bad, *found = await asyncio.gather(_control(ground, chosen), *map(one, chosen))
    outcome.violations = bad + [sentence for sentence in found if sentence]
    outcome.counts.update(mutants=rounds, caught=rounds - sum(map(bool, found)))
    return outcome


async def survived(ground: Ground, mutant: Mutant) -> str | None:
    """Why a mutant is not caught, if it is not."""
    smoke = target(ground.store, SMOKE)
    targets = [target(ground.store, check) for check in mutant.caught_by]
    with _place(ground) as name:
        found = await results(copy(Path(name), mutant), [smoke, *targets])
    if found and found.get(smoke) != "PASSED":
        return f"{mutant.what}: nothing works with it, so it proves nothing"
    if all(found.get(each) == "PASSED" for each in targets):
        return f"{mutant.what}: not caught by {', '.join(mutant.caught_by)}"
    return None


async def _control(ground: Ground, mutants: list[Mutant]) -> list[str]:
    """The same checks on a copy without a slip: which of them fail."""
    checks = {SMOKE, *(check for mutant in mutants for check in mutant.caught_by)}
    targets = sorted(target(ground.store, check) for check in checks)
    with _place(ground) as name:
        found = await results(copy(Path(name), None), targets)
    return [f"{each} fails without a slip" for each in targets if found.get(each) != "PASSED"]


def _place(ground: Ground) -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="mutant-", dir=ground.folder, ignore_cleanup_errors=True)
