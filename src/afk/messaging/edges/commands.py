"""What `afk` can do. Bad input is one line on standard error and exit code 2."""

from __future__ import annotations

import asyncio
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, NoReturn

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console

from afk.messaging import ConfigurationError, MessagingError, connect
from afk.messaging.bus import needs_extra
from afk.messaging.edges.demo.folder import FolderError
from afk.messaging.edges.demo.newsroom import DemoError, prepare, run_demo
from afk.messaging.edges.demo.shelf import ShelfError

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


def _version() -> str:
    try:
        return version("afk-messaging")
    except PackageNotFoundError:
        return "unknown (not installed)"


app = App(name="afk", help="Durable messages between agents.", version=_version)


@app.command
def demo(
    folder: Path | None = None,
    *,
    url: Annotated[str | None, Parameter(env_var="AFK_MESSAGING_URL")] = None,
    out: Path = Path("newsroom-out"),
    pace: Annotated[float, Parameter(validator=Number(gte=0, lte=60))] = 0.15,
) -> None:
    """Run a small newsroom, each agent in its own process, and kill one in mid-work.

    Every text file of the folder goes to two competing researchers; a writer makes one report of
    what they find, an editor has it revised. A second run does no work twice.

    Parameters
    ----------
    folder
        Whose text files to read; the docs folder of the current directory by default.
    url
        Where messages live; by default one SQLite file in the output folder.
    out
        The output folder: report, trace and, by default, the store.
    pace
        Seconds a researcher takes for a file, so that there is something to see.
    """
    chosen = folder or Path("docs")
    if folder is None and not chosen.is_dir():
        _fail("no docs folder here: name the folder to read, as in `afk demo FOLDER`", BAD_INPUT)
    try:
        plan = prepare(chosen, url=url, out=out, pace=pace)
        asyncio.run(run_demo(plan, Console()))
    except (FolderError, ShelfError) as error:
        _fail(error, BAD_INPUT)
    except (DemoError, MessagingError) as error:
        _fail(error, FAILED)
    except KeyboardInterrupt:
        _fail("stopped; run it again to go on from here", INTERRUPTED)


@app.command
def migrate(
    *,
    url: Annotated[str | None, Parameter(env_var="AFK_MESSAGING_URL")] = None,
    schema: str = "afk",
    show: Annotated[bool, Parameter(name="--print", negative=())] = False,
) -> None:
    """Make the tables and functions of the PostgreSQL store, or bring them up to date.

    A bus does this by itself when it opens, if it may. For a database where only an administrator
    may: `afk migrate --print | psql DATABASE`.

    Parameters
    ----------
    url
        The database: postgresql://user@host/database.
    schema
        Where the tables are, if the URL does not say it.
    show
        Print the SQL that makes them in an empty schema, and change nothing.
    """
    try:
        with needs_extra("postgres"):
            from afk.messaging.stores.postgres.migrations import script
        if show:
            print(script(schema), end="")
        elif url is None or not url.startswith(("postgresql://", "postgres://")):
            _fail("--url postgresql://... is needed, or --print", BAD_INPUT, "migrate")
        else:
            asyncio.run(_open(url, schema))
    except ConfigurationError as error:
        _fail(error, BAD_INPUT, "migrate")
    except MessagingError as error:
        _fail(error, FAILED, "migrate")


async def _open(url: str, schema: str) -> None:
    options = {} if "schema=" in url else {"schema": schema}
    async with connect(url, **options):
        pass


def _fail(what: object, code: int, command: str = "demo") -> NoReturn:
    # One line, whatever it holds: an error can quote a file name or a server.
    print(f"afk {command}: {' '.join(str(what).split())}", file=sys.stderr)
    sys.exit(code)
