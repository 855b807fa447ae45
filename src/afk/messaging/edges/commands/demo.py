"""`afk demo`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console

from afk.messaging import MessagingError
from afk.messaging.edges.demo.folder import FolderError
from afk.messaging.edges.demo.newsroom import DemoError, prepare, run_demo
from afk.messaging.edges.demo.shelf import ShelfError

from .place import BAD_INPUT, FAILED, complain, fail

commands = App(name="afk")


@commands.command
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
        fail(
            "no docs folder here: name the folder to read, as in `afk demo FOLDER`",
            BAD_INPUT,
            "demo",
        )
    try:
        plan = prepare(chosen, url=url, out=out, pace=pace)
        asyncio.run(run_demo(plan, Console()))
    except (FolderError, ShelfError) as error:
        fail(error, BAD_INPUT, "demo")
    except (DemoError, MessagingError) as error:
        fail(error, FAILED, "demo")
    except KeyboardInterrupt:
        complain("stopped; run it again to go on from here", "demo")
        raise
