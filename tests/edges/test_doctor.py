"""`afk doctor` on healthy stores, and on ones that are set badly, held, or gone."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from afk.messaging import connect
from afk.messaging.edges import doctor
from afk.messaging.edges.doctor import diagnose
from afk.messaging.edges.doctor import postgres as of_postgres
from afk.messaging.edges.doctor.finding import Finding, clock
from afk.messaging.testing.servers import NATS, Postgres, Server, find

HOLDER = """
import sys, time
from pathlib import Path
from afk.messaging.stores.sqlite.lock import LockFile
with LockFile(Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(100)
"""


async def findings(url: str) -> list[Finding]:
    return [finding async for finding in diagnose(url)]


def named(found: list[Finding], level: str) -> str:
    """What was found of this level, with the fixes."""
    return "\n".join(f"{each.what}: {each.fix}" for each in found if each.level == level)


@pytest.mark.parametrize("server", ["disk_server", "postgres18"])
async def test_a_healthy_server(server: str, request: pytest.FixtureRequest) -> None:
    found = await findings(request.getfixturevalue(server).url)
    assert named(found, "bad") == ""
    assert "survive: power loss" in named(found, "ok")
    assert "clock" in named(found, "ok")


async def test_a_nats_server(nats_server: NATS) -> None:
    found = await findings(f"{nats_server.url}?namespace=doctor")
    assert named(found, "bad") == ""
    assert "durability is 'process'" in named(found, "warning")
    assert "stream AFK-LOG_doctor" in named(found, "ok")
    told = await findings(f"{nats_server.url}?namespace=doctor&durability=disk")
    assert "what the URL says" in named(told, "warning")


async def test_forgotten_and_dead_mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "FORGOTTEN", -1.0)
    url = f"sqlite:///{tmp_path}/team.db"
    async with connect(url) as bus:
        bob = await bus.register("bob")
        await bob.send("bob", "bad")
        delivery = await bob.claim(0)
        assert delivery is not None
        await delivery.reject("no")
        await bob.send("bob", "waits")
    warnings = named(await findings(url), "warning")
    assert "nobody comes for it: bob" in warnings
    assert "1 dead letter(s), of bob" in warnings


async def test_a_file_that_others_can_read(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/team.db"
    assert "only its owner" in named(await findings(url), "ok")
    (tmp_path / "team.db").chmod(0o644)
    assert f"chmod 600 {tmp_path}/team.db" in named(await findings(url), "warning")


async def test_a_damaged_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/team.db"
    async with connect(url) as bus:
        await bus.register("bob")
    file = tmp_path / "team.db"
    data = bytearray(file.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    file.write_bytes(data)
    assert "damaged" in named(await findings(url), "bad")


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that was stopped while it held the lock."""
    asyncio.run(findings(f"sqlite:///{tmp_path}/team.db"))
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "team.db.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGSTOP)
        yield process
        process.kill()


def test_who_holds_the_lock_is_named(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    found = asyncio.run(findings(f"sqlite:///{tmp_path}/team.db?patience=0.5"))
    assert f"process {holder.pid} has held the file's lock" in named(found, "bad")


async def test_a_redis_that_forgets(tmp_path: Path) -> None:
    with Server(find("redis"), tmp_path, appendonly="no", save="") as server:
        bad = named(await findings(server.url), "bad")
        assert "CONFIG SET appendonly yes" in bad
        assert "maxmemory is not set" in named(await findings(server.url), "warning")
    with Server(find("redis"), tmp_path, maxmemory_policy="allkeys-lru") as server:
        bad = named(await findings(server.url), "bad")
        assert "does not open" in bad
        assert "maxmemory-policy noeviction" in bad
    assert "does not open" in named(await findings(f"{server.url}?patience=0.5"), "bad")


async def test_a_postgres_that_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_postgres, "IDLE", 0.0)
    with Postgres(find("postgres18"), tmp_path, fsync="off", autovacuum="off") as server:
        connection = await asyncpg.connect(server.url)
        transaction = connection.transaction()
        await transaction.start()
        found = await findings(server.url)
        await connection.close()
    bad = named(found, "bad")
    assert "ALTER SYSTEM SET fsync = on" in bad
    assert "tables grow for ever" in bad
    assert "pg_terminate_backend" in named(found, "warning")


def test_clocks_are_compared() -> None:
    assert clock(0.2).level == "ok"
    assert clock(-90).level == "warning"
