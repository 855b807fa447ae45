"""Runs every ```python block of README.md and docs/, so that what they show is true.

The blocks of one document share their names, one event loop and an empty working directory.
`await` works at the top level, as in `python -m asyncio`; a block without it runs as a script
would, so `asyncio.run(main())` works too. Where a block names the usual port of Redis (6379),
PostgreSQL (5432) or NATS (4222), it runs against a real server on another port. To run code the
reader does not see, or to skip:

    <!-- invisible-code-block: python            <!-- skip: next "needs a server" -->
    await bus.aclose()
    -->                                          ```python no-run

At the end of a document no task may be left: close what was opened.
"""

import ast
import asyncio
import atexit
import gc
import inspect
import re
import signal
from collections.abc import Callable, Iterable
from contextlib import ExitStack, chdir
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sybil import Document, Example, Region, Sybil
from sybil.integration.pytest import SybilItem
from sybil.parsers.markdown import SkipParser
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, RawFencedCodeBlockLexer

from afk.messaging.testing.servers import NATS, Daemon, Postgres, Server, find

SERVERS: dict[str, Callable[[str], Daemon]] = {
    "6379": lambda folder: Server(find("redis"), folder),
    "5432": lambda folder: Postgres(find("postgres"), folder),
    "4222": lambda folder: NATS(find("nats"), folder),
}
USUAL_PORT = re.compile(rf"\b(?:{'|'.join(SERVERS)})\b")
LEXERS = (
    RawFencedCodeBlockLexer(re.compile(r"[ \t]*(?:python|py)\b(?P<arguments>.*)$\n", re.MULTILINE)),
    DirectiveInHTMLCommentLexer(directive="invisible-code-block", arguments="python"),
)


def pytest_configure() -> None:
    # A shell without job control has what it runs in the background ignore this, and all that
    # comes from it too: then no test could interrupt a process.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def snippets(document: Document) -> Iterable[Region]:
    for lexer in LEXERS:
        for region in lexer(document):
            region.parsed, region.evaluator = region.lexemes["source"], evaluate
            yield region


def evaluate(example: Example) -> None:
    if "no-run" in example.region.lexemes["arguments"].split():
        pytest.skip("marked no-run")
    lines_above = "\n" * (example.line + example.parsed.line_offset)
    source = USUAL_PORT.sub(real_port, lines_above + example.parsed)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(source, example.path, "exec", flags, dont_inherit=True)
    result = eval(code, example.namespace)  # a coroutine if the block awaits, else None
    if inspect.iscoroutine(result):
        example.namespace["__runner__"].run(result)


def real_port(match: re.Match[str]) -> str:
    return str(server(match[0]).port)


@cache
def server(usual_port: str) -> Daemon:
    """A server for the documents, started when the first one needs it."""
    folder = TemporaryDirectory(ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    server = SERVERS[usual_port](folder.name)
    server.start()  # it ends with the interpreter
    return server


def open_document(namespace: dict[str, Any]) -> None:
    stack = ExitStack()
    stack.enter_context(chdir(stack.enter_context(TemporaryDirectory())))
    runner = stack.enter_context(asyncio.Runner())
    namespace.update(__name__="__main__", __runner__=runner, __stack__=stack)


def close_document(namespace: dict[str, Any]) -> None:
    runner, stack = namespace["__runner__"], namespace["__stack__"]
    with stack:
        namespace.clear()
        gc.collect()  # a coroutine that was never awaited is reported here
        left = runner.run(other_tasks())
        assert not left, f"the document leaves running tasks: {left}"


async def other_tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


def traceback_filter(item: SybilItem, error: pytest.ExceptionInfo[BaseException]) -> Any:
    in_document = error.traceback.cut(path=item.path)
    return error.traceback[-1:] if in_document is error.traceback else in_document


# Sybil's own filter fails on what is raised after a snippet, such as a leak.
SybilItem._traceback_filter = traceback_filter


pytest_collect_file = Sybil(
    parsers=[SkipParser(), snippets],
    pattern="*.md",
    setup=open_document,
    teardown=close_document,
).pytest()
