from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import nats
import pytest
from nats.js import JetStreamContext

from afk.messaging.testing import servers
from afk.messaging.testing.servers import NATS, NATSCluster, ServerError, ServerMissingError, find


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NATS]:
    with NATS(find("nats"), tmp_path_factory.mktemp("nats")) as server:
        yield server
    assert not server.running


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NATSCluster]:
    with NATSCluster(find("nats"), tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster
    assert not any(node.running for node in cluster.nodes)


@asynccontextmanager
async def jetstream(url: str, **options: str) -> AsyncIterator[JetStreamContext]:
    connection = await nats.connect(url.split(","), **options)
    try:
        yield connection.jetstream(timeout=10)
    finally:
        await connection.close()


async def publish(js: JetStreamContext, text: str) -> None:
    """Until the answer says that it is there: what a dead node was asked is not answered."""
    while True:
        with suppress(nats.errors.TimeoutError, nats.js.errors.Error):
            await js.publish("mail", text.encode(), timeout=1, headers={"Nats-Msg-Id": text})
            return


async def test_a_server_answers_at_its_url(server: NATS) -> None:
    assert server.url == f"nats://127.0.0.1:{server.port}"
    assert server.info()["version"] == server.monitor("varz")["version"]
    for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
        async with jetstream(url) as js:
            assert (await js.account_info()).limits.max_streams == -1


@pytest.mark.parametrize("kill", [True, False])
async def test_a_restart_keeps_the_port_and_the_data(server: NATS, kill: bool) -> None:
    port, pid = server.port, server.pid
    stream = f"kept-{kill}"
    async with jetstream(server.url) as js:
        await js.add_stream(name=stream, subjects=[stream])
        await js.publish(stream, b"mail")
    server.restart(kill=kill)
    async with jetstream(server.url) as js:
        assert (await js.get_msg(stream, 1)).data == b"mail"
    assert (server.port, server.pid != pid) == (port, True)


def test_a_paused_server_is_silent_until_it_is_resumed(server: NATS) -> None:
    server.pause()
    with pytest.raises(TimeoutError):
        server.info(timeout=0.05)
    server.resume()
    assert server.info()["port"] == server.port


async def test_settings_and_configuration(tmp_path: Path) -> None:
    config = 'authorization { token: "s3cret" }'
    with NATS(find("nats"), tmp_path, config, sync_interval="always") as server:
        assert server.info()["auth_required"]
        assert server.monitor("jsz")["config"]["sync_always"]
        async with jetstream(server.url, token="s3cret") as js:
            await js.add_stream(name="mail")
    assert (tmp_path / "jetstream").is_dir()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = NATS(find("nats"), tmp_path, "max_paiload: 1")
    with pytest.raises(ServerError, match="max_paiload"):
        server.start()
    assert not server.running


def test_two_at_once(server: NATS, tmp_path: Path) -> None:
    second = NATS(server.binary, tmp_path / "second")
    second.port = server.port
    with second:
        assert second.port != server.port
        assert second.info()["server_id"] != server.info()["server_id"]
        with pytest.raises(ServerError, match="address already in use"):
            NATS(server.binary, tmp_path / "third", port=server.port).start()


def test_an_old_server_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nats-server"
    program.write_text("#!/bin/sh\necho nats-server: v2.9.10\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(servers.binaries.sysconfig, "get_path", lambda name: "/nonexistent")
    with pytest.raises(ServerMissingError, match=r"nats-server 2\.12 or newer"):
        find("nats")
    program.write_text("#!/bin/sh\necho nats-server: v2.12.0\n")
    assert find("nats") == program


async def test_a_cluster_survives_the_death_of_a_node(cluster: NATSCluster) -> None:
    leader = cluster.leader()
    async with jetstream(cluster.url) as js:
        await js.add_stream(name="mail", subjects=["mail"], num_replicas=3)
        leader.kill()
        await publish(js, "still there")
        cluster.until_ok()
        assert cluster.leader() is not leader
        leader.start()
        cluster.until_ok()
        assert (await js.stream_info("mail")).state.messages == 1
