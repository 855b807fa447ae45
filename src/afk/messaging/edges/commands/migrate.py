"""`afk migrate`."""

from __future__ import annotations

import asyncio
from typing import Annotated

from cyclopts import App, Parameter

from afk.messaging import ConfigurationError, MessagingError, connect
from afk.messaging.bus import needs_extra

from .place import BAD_INPUT, FAILED, fail

commands = App(name="afk")


@commands.command
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
            fail("--url postgresql://... is needed, or --print", BAD_INPUT, "migrate")
        else:
            asyncio.run(_open(url, schema))
    except ConfigurationError as error:
        fail(error, BAD_INPUT, "migrate")
    except MessagingError as error:
        fail(error, FAILED, "migrate")


async def _open(url: str, schema: str) -> None:
    options = {} if "schema=" in url else {"schema": schema}
    async with connect(url, **options):
        pass
