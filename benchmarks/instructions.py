"""How many instructions the hot paths take: a figure that a busy machine does not change.

python -m benchmarks.instructions            compare with what is kept; exit code 1 if it grew
python -m benchmarks.instructions --keep     keep what is found

A path runs under valgrind so often, and then more often; the difference is what one message takes.
It is given as a multiple of what `asyncio.Queue` and a JSON encode and decode take in the same run,
so that it holds for another build of the same Python.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

KEPT = Path(__file__).with_suffix(".json")
TOLERANCE = 0.05
"""By what share a path may grow, or shrink, before the kept figure has to change."""
FEW, MANY = 100, 500
_COUNT = re.compile(r"==(\d+)== I +refs: +([\d,]+)")


def figures() -> dict[str, float]:
    """Each path's instructions a message, as a multiple of the yardstick's."""
    counts = _measured()
    costs = {name: (counts[name, MANY] - counts[name, FEW]) / (MANY - FEW) for name in _PATHS}
    yardstick = costs.pop("yardstick")
    return {name: round(cost / yardstick, 3) for name, cost in costs.items()}


def kept() -> dict[str, float] | None:
    """What was found before, with this version of Python; None if nothing was."""
    found: dict[str, dict[str, float]] = json.loads(KEPT.read_text("utf-8"))
    return found.get(_python())


def changes(found: dict[str, float], before: dict[str, float]) -> list[str]:
    """A sentence for each path whose figure is not what it was."""
    return [
        f"{name}: {value:g} times the yardstick, {before[name]:g} before"
        for name, value in found.items()
        if abs(value / before[name] - 1) > TOLERANCE
    ]


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _measured() -> dict[tuple[str, int], int]:
    """The instructions of each path at each size, all forked from one interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
        command += [f"--log-file={logs}/%p", sys.executable, "-m", __spec__.name, "--work"]
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        counts = {}
        for line in done.stdout.splitlines():
            pid, name, times = line.split()
            counts[name, int(times)] = _refs((logs / pid).read_text("utf-8"), pid)
    return counts


def _refs(log: str, pid: str) -> int:
    found = [int(count.replace(",", "")) for who, count in _COUNT.findall(log) if who == pid]
    if not found:
        sys.exit(f"valgrind did not count: {log}")
    return found[-1]


# -- what is counted ---------------------------------------------------------------------

_PAYLOAD = {
    "task": "summarise chapter 00000001",
    "text": "The quick brown fox jumps over the lazy dog. " * 2,
    "tags": ["draft", "research", "physics"],
    "score": 0.25,
    "final": False,
}


async def _yardstick(times: int) -> None:
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    for _ in range(times):
        await queue.put(json.dumps(_PAYLOAD).encode())
        json.loads(await queue.get())


async def _send_and_receive(times: int) -> None:
    from afk.messaging import InMemoryMessageBus

    async with InMemoryMessageBus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for _ in range(times):
            await ada.send("bob", _PAYLOAD)
            await bob.receive(timeout=0)


async def _send(times: int) -> None:
    from afk.messaging import InMemoryMessageBus

    async with InMemoryMessageBus() as bus:
        ada, _ = await bus.register("ada"), await bus.register("bob")
        for _ in range(times):
            await ada.send("bob", _PAYLOAD)


async def _send_claim_and_ack(times: int) -> None:
    from afk.messaging import InMemoryMessageBus

    async with InMemoryMessageBus() as bus:
        ada, bob = await bus.register("ada"), await bus.register("bob")
        for _ in range(times):
            await ada.send("bob", _PAYLOAD)
            delivery = await bob.claim(timeout=0)
            assert delivery is not None
            await delivery.ack()


_PATHS: dict[str, Callable[[int], Awaitable[None]]] = {
    "yardstick": _yardstick,
    "send": _send,
    "send+receive": _send_and_receive,
    "send+claim+ack": _send_claim_and_ack,
}


def _work() -> None:
    """Fork a process for each path and size, and say which is which."""
    import afk.messaging  # noqa: F401 - before the fork, so that no child has to

    for name, path in _PATHS.items():
        for times in (FEW, MANY):
            if not (pid := os.fork()):
                asyncio.run(path(times))
                os._exit(0)
            os.waitpid(pid, 0)
            print(pid, name, times, flush=True)


def main() -> None:
    """Compare, or keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions")
    parser.add_argument("--keep", action="store_true", help="keep what is found")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        _work()
        return
    found = figures()
    for name, value in found.items():
        print(f"{name}: {value:g} times the yardstick")
    if options.keep:
        all_kept = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {}
        all_kept[_python()] = found
        KEPT.write_text(json.dumps(all_kept, indent=1) + "\n", "utf-8")
    elif (before := kept()) is None:
        sys.exit(f"nothing is kept for Python {_python()}; run it with --keep")
    elif different := changes(found, before):
        sys.exit("\n".join(different))


if __name__ == "__main__":
    main()
