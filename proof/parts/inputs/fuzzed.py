"""Input that a fuzzer makes, which sees what of the package each one reaches."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

from afk.messaging import AgentMessage
from afk.messaging.records import letter_record, wire

from ...trial import Ground, Outcome, Run

SLOWEST = 5
"""Seconds that one input may take, with a fuzzer that watches each step."""
_EXAMPLES: dict[str, list[bytes]] = {
    "read": [wire(letter_record(AgentMessage("ada", "bob", {"a": [1, None, "x"]}), "key"))],
    "name": [b"ada", b"team/ada@host:1"],
    "url": [
        *(b"sqlite:///team.db?lease=5", b"memory://name", b"redis://:pw@host:6379/0?patience=1"),
        *(b"postgresql://user@host:5432/db?schema=afk", b"nats://a:4222,b:4222?replicas=3"),
        b"redis+sentinel://host:26379/service",
    ],
}


def fuzzed(target: str) -> Run:
    """A round is an input."""

    async def trial(ground: Ground, rounds: int, seed: int) -> Outcome:
        folder = ground.folder / f"fuzz-{target}-{seed}"
        examples = folder / "examples"
        examples.mkdir(parents=True)
        for number, example in enumerate(_EXAMPLES[target]):
            (examples / str(number)).write_bytes(example)
        options = f"-runs={rounds}", f"-seed={seed % 2**31 or 1}", f"-timeout={SLOWEST}"
        command = sys.executable, "-m", "proof.fuzz", target, str(examples), *options
        pipe = asyncio.subprocess.PIPE
        fuzzer = await asyncio.create_subprocess_exec(
            *command, f"-artifact_prefix={folder}/", "-verbosity=0", stdout=pipe, stderr=pipe
        )
        said, logged = await fuzzer.communicate()
        outcome = Outcome(rounds)
        outcome.counts["inputs"] = rounds
        if fuzzer.returncode != 0:
            outcome.violations.append(_found(folder, said, logged))
        shutil.rmtree(folder)
        return outcome

    return trial


def _found(folder: Path, said: bytes, logged: bytes) -> str:
    inputs = [each.read_bytes() for each in folder.iterdir() if each.is_file()]
    words = said[-1500:] + logged[-500:]
    return f"{inputs!r}: {words.decode('utf-8', 'replace')}"
