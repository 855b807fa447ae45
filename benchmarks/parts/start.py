"""What importing the package costs."""

from __future__ import annotations

import os
import subprocess
import sys

from ..figures import Figure, Goal
from ..results import Result
from . import Wish

STORES = ("none",)
_STEPS = {
    "the bare interpreter": "pass",
    "import msgspec": "import msgspec",
    "import asyncio, after msgspec": "import msgspec, asyncio",
    "import afk.messaging, after both": "import afk.messaging",
}


def _cpu(code: str) -> float:
    """Milliseconds of CPU of an interpreter that runs `code`."""
    environment = {**os.environ}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling is not what is asked
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return (usage.ru_utime + usage.ru_stime) * 1000


def measure(wish: Wish, store: str) -> Result:
    """Each step over the one before it, in turns."""
    codes = list(_STEPS.values())
    _cpu(codes[-1])  # compiles
    turns = [[_cpu(code) for code in codes] for _ in range(9 if wish.quick else 25)]
    steps = [
        [turn[step] - (turn[step - 1] if step else 0) for turn in turns]
        for step in range(len(codes))
    ]
    figures = [Figure(name, values, "CPU ms") for name, values in zip(_STEPS, steps, strict=True)]
    added = min(turn[-1] for turn in turns) - min(turn[1] for turn in turns)
    name = "afk.messaging with asyncio, over msgspec, least of all turns"
    return Result([*figures, Figure(name, [added], "CPU ms", goal=Goal("<=", 60, "CPU ms"))])
