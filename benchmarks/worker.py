"""The process a measurement runs in: `python -m benchmarks.worker MODULE:FUNCTION ARGUMENTS`.

The function is an async generator. Each line on stdin asks for its next answer, which leaves as
a line of JSON; the end of stdin ends it.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys


async def _main(target: str, arguments: str) -> None:
    module, _, name = target.partition(":")
    answers = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    while sys.stdin.readline():  # blocks: between two answers nothing is measured
        answer = await anext(answers, None)
        print(json.dumps(answer), flush=True)
    await answers.aclose()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
