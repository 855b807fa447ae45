"""Where the processor time of a message goes, layer by layer, found by sampling the stack."""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path

from ..buses import STORES, TITLES
from ..figures import Table
from ..results import Result
from ..runner import Job, once, say
from ..text import number
from . import Wish, named

__all__ = ["STORES", "layers", "measure"]

_ONE = {"W1, receive()": (1, "receive")}
_SERVED = {"W3, serve(concurrency=100)": (100, "serve")}
LOADS = {
    store: _ONE | ({"W3, receive()": (100, "receive")} if store == "memory" else _SERVED)
    for store in STORES
}
"""Name: (tasks that send, who consumes), as the workloads have it."""
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
    for load, (tasks, consumer) in LOADS[store].items():
        if not named(load, wish.workloads):
            continue
        say(f"profile {store}: {load}")
        count = 50_000 if store == "memory" else 3_000 if tasks == 1 else 20_000
        arguments = {"store": store, "count": count, "tasks": tasks, "consumer": consumer}
        with tempfile.TemporaryDirectory(prefix="afk-bench-") as folder:
            out = Path(folder) / "stacks"
            watch = (program, "record", "--full-filenames", "--rate", str(_RATE), "--gil")
            under = (*watch, "--format", "raw", "--output", str(out), "--")
            cpu = once(Job("loads.library:stream", arguments, under))["cpu"]
            took = layers(out.read_text("utf-8"))
        parts = [seconds / count * 1e6 for seconds in took.values()]
        least = (took["mailboxes"] + took["event loop"]) / count
        cells = [*parts, max(0.0, cpu - sum(parts)), cpu]
        rows.append([load, *map(number, cells), number(1 / least) if least else ""])
    head = ["workload", *LAYERS, REST, UNLOCKED, "in all", "msgs/s, did the rest take nothing"]
    return Result(tables=[Table(f"{TITLES[store]}, µs a message", head, rows)])
