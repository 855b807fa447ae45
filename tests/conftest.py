"""Real servers, started when the first test asks for one, and stopped at the end of the run.

A server that cannot be started fails the tests that need it; none is passed over.
"""

from collections.abc import Iterator

import pytest

from afk.messaging.testing.servers import Cluster, Sentinels, Server, find


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Redis as most run it: an append-only file, synced every second."""
    with Server(find("redis"), tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def disk_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Valkey, each write synced."""
    folder = tmp_path_factory.mktemp("valkey")
    with Server(find("valkey"), folder, appendfsync="always") as server:
        yield server


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three masters."""
    with Cluster(find("valkey"), tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    """A primary, a replica and three Sentinels."""
    with Sentinels(find("redis"), tmp_path_factory.mktemp("sentinels")) as group:
        yield group
