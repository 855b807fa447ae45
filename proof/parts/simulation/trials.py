"""Many stories, in processes of their own."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import multiprocessing
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from ...trial import Ground, Outcome
from .story import tell

PROCESSES = os.cpu_count() or 2
CHUNK = 200
"""Stories that a process tells at a time."""
_FIGURES = ("sends", "accepted", "unknown", "deliveries", "repeats", "faults", "dead", "callbacks")


async def stories(ground: Ground, rounds: int, seed: int) -> Outcome:
    """Each of another seed, judged."""
    loop, chunks = asyncio.get_running_loop(), _chunks(rounds, seed)
    outcome = Outcome(rounds)
    with _processes(PROCESSES) as pool:
        for wrong, counts in await asyncio.gather(
            *(loop.run_in_executor(pool, _tell, chunk) for chunk in chunks)
        ):
            outcome.violations += wrong
            outcome.counts += counts
    return outcome


async def replay(ground: Ground, rounds: int, seed: int) -> Outcome:
    """Each told twice, by two processes, one of which goes backwards: the traces are the same."""
    loop, seeds = asyncio.get_running_loop(), range(seed, seed + rounds)
    with _processes(1) as one, _processes(1) as other:
        first, second = await asyncio.gather(
            loop.run_in_executor(one, _traces, seeds),
            loop.run_in_executor(other, _traces, seeds[::-1]),
        )
    differ = [number for number in seeds if first[number] != second[number]]
    lengths = Counter({"bytes": sum(length for length, _ in first.values())})
    return Outcome(rounds, [f"seed {number} has two traces" for number in differ], lengths)


def _processes(count: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # so that each hashes strings in its own way
    return ProcessPoolExecutor(count, context, _quiet)


def _quiet() -> None:
    logging.getLogger("afk.messaging").setLevel(logging.CRITICAL)
    gc.freeze()
    gc.set_threshold(20_000)  # a story leaves cycles, and most of the time is not spent here


def _chunks(rounds: int, seed: int) -> list[range]:
    seeds = range(seed, seed + rounds)
    return [seeds[start : start + CHUNK] for start in range(0, rounds, CHUNK)]


def _tell(seeds: range) -> tuple[list[str], Counter[str]]:
    wrong: list[str] = []
    counts: Counter[str] = Counter()
    for seed in seeds:
        told = tell(seed)
        wrong += [f"seed {seed}: {sentence}" for sentence in told.wrong]
        counts += told.counts
    return wrong, Counter({name: counts[name] for name in _FIGURES})


def _traces(seeds: range) -> dict[int, tuple[int, str]]:
    found = {}
    for seed in seeds:
        trace = tell(seed).trace
        found[seed] = len(trace), hashlib.blake2b(trace, digest_size=16).hexdigest()
    return found
