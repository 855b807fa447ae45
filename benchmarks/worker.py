"""The process a measurement runs in: `python -m benchmarks.worker MODULE:FUNCTION ARGUMENTS`.

The function is an async generator. Each line on stdin asks for its next answer, which leaves as
a line of JSON; the end of stdin ends it.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import signal
import sys


async def _main(target: str, arguments: str) -> None:
    module, _, name = target.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        sys.exit(f"{target} needs {error.name}: pip install --group bench")
    answers = function(**json.loads(arguments))
    while sys.stdin.readline():  # blocks: between two answers nothing is measured
        answer = await anext(answers, None)
        print(json.dumps(answer), flush=True)
    await answers.aclose()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # servers end with their block
    asyncio.run(_main(*sys.argv[1:]))
