"""Real servers, started when the first test asks for one, and stopped at the end of the run.

A server that cannot be started fails the tests that need it; none is passed over.
"""

from collections.abc import Iterator

import pytest

from afk.messaging.testing.servers import (
    NATS,
    Cluster,
    NATSCluster,
    PgBouncer,
    Postgres,
    Sentinels,
    Server,
    find,
)


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


@pytest.fixture(scope="session")
def postgres15(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """PostgreSQL as Debian has it: 15 on Debian 12."""
    with Postgres(find("postgres"), tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres18(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """PostgreSQL 18."""
    with Postgres(find("postgres18"), tmp_path_factory.mktemp("postgres18")) as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(
    postgres15: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PgBouncer]:
    """PgBouncer in front of `postgres15`, a connection for each transaction."""
    with PgBouncer(find("pgbouncer"), tmp_path_factory.mktemp("pgbouncer"), postgres15) as pool:
        yield pool


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NATS]:
    """NATS that syncs each write."""
    folder = tmp_path_factory.mktemp("nats")
    with NATS(find("nats"), folder, sync_interval="always") as server:
        yield server


@pytest.fixture(scope="session")
def nats_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NATSCluster]:
    """Three NATS servers that sync each write."""
    folder = tmp_path_factory.mktemp("nats-cluster")
    with NATSCluster(find("nats"), folder, sync_interval="always") as cluster:
        yield cluster
