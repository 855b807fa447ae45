"""`afk migrate`, as an administrator uses it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from afk.messaging import ConfigurationError, connect
from afk.messaging.testing.servers import Postgres


def afk(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "afk.messaging.edges.cli", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


async def test_what_it_prints_makes_the_schema(postgres18: Postgres) -> None:
    """Run by an administrator, it lets a user work who may not create anything."""
    printed = afk("migrate", "--print", "--schema", "printed")
    assert printed.returncode == 0
    postgres18.psql(printed.stdout)
    postgres18.psql(
        "CREATE ROLE clerk LOGIN; GRANT USAGE ON SCHEMA printed TO clerk;"
        "GRANT ALL ON ALL TABLES IN SCHEMA printed TO clerk;"
        "GRANT ALL ON ALL SEQUENCES IN SCHEMA printed TO clerk"
    )
    url = postgres18.url.replace("postgres@", "clerk@")
    async with connect(f"{url}?schema=printed") as bus:
        ada = await bus.register("ada")
        await ada.send("ada", "hello")
        message = await ada.receive(timeout=5)
        assert message is not None
    with pytest.raises(ConfigurationError, match="afk migrate --print"):
        await connect(f"{url}?schema=unmade").agents()


async def test_it_makes_the_schema_itself(postgres18: Postgres) -> None:
    """And again, as often as one likes."""
    for _ in range(2):
        done = afk("migrate", "--url", postgres18.url, "--schema", "made")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "made" in postgres18.psql("SELECT nspname FROM pg_namespace")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "is needed, or --print"),
        (("--url", "sqlite:///x.db"), "is needed, or --print"),
        (("--print", "--schema", "a-b"), "schema: 'a-b' is not a name"),
        (("--url", "postgresql://u:secret@127.0.0.1:1/x"), "cannot be used"),
    ],
)
def test_mistakes_are_one_line(args: tuple[str, ...], said: str, monkeypatch: Any) -> None:
    monkeypatch.delenv("AFK_MESSAGING_URL", raising=False)
    done = afk("migrate", *args)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("afk migrate: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr
