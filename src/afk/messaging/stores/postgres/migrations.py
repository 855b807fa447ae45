"""The schema: which version a database has, and how it gets the one this package needs."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import asyncpg

from ...errors import ConfigurationError

_LOCK = 6383212
"""The advisory lock of whoever changes a schema; 6383211 are those of threads."""


_THERE = (
    "SELECT count(*) FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = $1 AND c.relname = 'version' AND c.relkind = 'r'"
)


def quoted(name: str) -> str:
    """A schema's name as an identifier."""
    return '"' + name.replace('"', '""') + '"'


def check_schema(name: str) -> str:
    """ConfigurationError if it cannot be the name of a schema."""
    if not isinstance(name, str) or not re.fullmatch(r"[^\W\d]\w{0,62}", name):
        raise ConfigurationError(
            f"schema: {name!r} is not a name of up to 63 letters, digits and underscores"
        )
    if len(name.encode()) > 63 or name.startswith("pg_"):
        raise ConfigurationError(f"schema: {name!r} is too long, or reserved; choose another name")
    return name


def steps() -> list[str]:
    """The schema's versions, in order; the n-th text brings version n."""
    folder = files(__package__) / "schema"
    return [
        entry.read_text("utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".sql")
    ]


def script(schema: str = "afk", since: int = 0) -> str:
    """The SQL that brings a schema from version `since` to the newest, in one transaction."""
    return f"BEGIN;\n{_body(check_schema(schema), since)}\nCOMMIT;\n"


def _body(schema: str, since: int) -> str:
    name = quoted(schema)
    head = f"SET LOCAL search_path = {name}, pg_temp;\nSET LOCAL check_function_bodies = off;\n"
    if since == 0:
        head = (
            f"CREATE SCHEMA IF NOT EXISTS {name};\n{head}"
            "CREATE TABLE version (number int NOT NULL);\n"
        )
    parts = [
        f"-- version {number}\n{text}\nINSERT INTO version VALUES ({number});\n"
        for number, text in enumerate(steps(), 1)
        if number > since
    ]
    return head + "".join(parts)


async def version_of(connection: Any, schema: str) -> int:
    """The version a database has; 0 if it has none. In a transaction."""
    try:
        # to_regclass() may answer from what was cached before another process made it.
        there = await connection.fetchval(_THERE, schema)
        if not there:
            return 0
        query = f"SELECT coalesce(max(number), 0) FROM {quoted(schema)}.version"  # noqa: S608
        return int(await connection.fetchval(query))
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigurationError(
            f"schema {schema!r} may not be used ({error}); have an administrator GRANT USAGE on"
            " the schema, and ALL on its tables and sequences, to this user"
        ) from error


async def migrate(connection: Any, schema: str) -> None:
    """Bring the schema up to date; many may try at once. ConfigurationError if that cannot be."""
    newest = len(steps())
    async with connection.transaction():
        version = await version_of(connection, schema)
    if version < newest:
        try:
            async with connection.transaction(isolation="read_committed"):
                # One at a time: who waited, however long, finds it done.
                await connection.execute("SET LOCAL lock_timeout = 0")
                await connection.fetchval("SELECT pg_advisory_xact_lock($1)", _LOCK)
                version = await version_of(connection, schema)
                if version < newest:
                    await connection.execute(_body(schema, version))
        except asyncpg.InsufficientPrivilegeError as error:
            raise ConfigurationError(
                f"schema {schema!r} cannot be created by this user ({error}); have an administrator"
                " run what `afk migrate --print` prints, and GRANT"
                " USAGE on the schema and ALL on its tables and sequences to this user"
            ) from error
        except (asyncpg.DuplicateTableError, asyncpg.DuplicateFunctionError) as error:
            raise ConfigurationError(
                f"schema {schema!r} holds tables of something else ({error}); choose another with"
                " the option schema"
            ) from error
    if version > newest:
        raise ConfigurationError(
            f"schema {schema!r} was written by a newer afk-messaging (version {version}, this one"
            f" knows {newest}); upgrade the package"
        )
