"""Where the processor time of a message goes, layer by layer, found by sampling the stack."""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from ..buses import STORES, TITLES
from ..figures import Table
from ..results import Result
from ..runner import Job, once, say
from ..text import number
from . import Wish, named

__all__ = ["STORES", "layers", "measure"]

_AGENTS = 100


def _loads(store: str) -> dict[str, tuple[str, dict[str, Any], int]]:
    """By the names that the workloads have: what runs, its arguments, and messages."""
    memory = store == "memory"
    reads = ("W3, receive()", "receive") if memory else ("W3, serve(concurrency=100)", "serve")
    one, many = (50_000, 50_000) if memory else (3_000, 20_000)
    asks, calls = (10_000, 500) if memory else (1_500, 100)
    return {
        "W1, receive()": ("stream", {"count": one, "tasks": 1, "consumer": "receive"}, one),
        "W2, p50": ("round_trip", {"count": asks}, asks),
        reads[0]: ("stream", {"count": many, "tasks": 100, "consumer": reads[1]}, many),
        "W4": ("broadcast", {"count": calls, "agents": _AGENTS}, calls * _AGENTS),
    }


LAYERS = {
    "mailboxes": r"afk/messaging/\w+\.py",
    "ledger": r"afk/messaging/stores/ledger/",
    "store": r"afk/messaging/stores/|/sqlite3/",
    "driver": r"/(redis|asyncpg|nats)/",
    "event loop": r"/(asyncio/\w+|selectors|threading|queue|contextlib)\.py|weakref",
}
"""In the order in which they are looked for in the path of the code; C counts as its caller."""
REST, UNLOCKED = "measuring", "system, SQLite"
_RATE = 500


def layers(stacks: str) -> dict[str, float]:
    """Seconds of each layer, from py-spy's lines of `frame;frame;.. count`; what is not of the
    workload (imports, a server's start) is left out."""
    counts = Counter[str]()
    for line in stacks.splitlines():
        stack, _, times = line.rpartition(" ")
        if "importlib" in stack or "benchmarks/servers" in stack:
            continue
        leaf = stack.rpartition(";")[2]
        found = [name for name, path in LAYERS.items() if re.search(path, leaf)]
        counts[found[0] if found else REST] += int(times)
    return {name: counts[name] / _RATE for name in (*LAYERS, REST)}


def measure(wish: Wish, store: str) -> Result:
    """Each workload once, in a process that is watched."""
    program = shutil.which("py-spy", path=sysconfig.get_path("scripts"))
    if program is None:
        sys.exit("the profile needs py-spy: pip install --group bench")
    rows = []
    for load, (kind, arguments, count) in _loads(store).items():
        if not named(load, wish.workloads):
            continue
        say(f"profile {store}: {load}")
        with tempfile.TemporaryDirectory(prefix="afk-bench-") as folder:
            out = Path(folder) / "stacks"
            watch = (program, "record", "--full-filenames", "--rate", str(_RATE), "--gil")
            under = (*watch, "--format", "raw", "--output", str(out), "--")
            cpu = once(Job(f"loads.library:{kind}", {"store": store} | arguments, under))["cpu"]
            took = layers(out.read_text("utf-8"))
        parts = [seconds / count * 1e6 for seconds in took.values()]
        rows.append([load, *map(number, [*parts, max(0.0, cpu - sum(parts)), cpu])])
    head = ["workload", *LAYERS, REST, UNLOCKED, "in all"]
    return Result(tables=[Table(f"{TITLES[store]}, µs a message", head, rows)])
