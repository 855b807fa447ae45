"""Every store keeps every promise of the contract."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import asyncio as redis

from afk.messaging import (
    Capabilities,
    InMemoryA2ADeliveryStore,
    RedisA2ADeliveryStore,
    SQLiteA2ADeliveryStore,
)
from afk.messaging.testing import CHECKS, Check, Subject


class Memory(Subject):
    capabilities = Capabilities(durability="memory", renews_when_blocked=True)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._store: InMemoryA2ADeliveryStore | None = None

    def store(self, clock: Callable[[], float] | None = None) -> InMemoryA2ADeliveryStore:
        if self._store is None:
            self._store = InMemoryA2ADeliveryStore(clock=clock or time.time)
        return self._store


class SQLite(Subject):
    capabilities = Capabilities(
        durability="disk", shared=True, renews_when_blocked=True, transactions=True
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.url = f"sqlite:///{folder}/mail.db"

    def store(self, clock: Callable[[], float] | None = None) -> SQLiteA2ADeliveryStore:
        return SQLiteA2ADeliveryStore(self.folder / "mail.db", clock=clock or time.time)


class Redis(Subject):
    """Redis 7, synced every second."""

    server = "redis_server"
    capabilities = Capabilities(durability="process", shared=True, renews_when_blocked=True)

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder)
        self._namespace = uuid.uuid4().hex
        self._server = url
        self.url = f"{url}?namespace={self._namespace}"

    def store(self, clock: Callable[[], float] | None = None) -> RedisA2ADeliveryStore:
        client = redis.Redis.from_url(self._server)
        return RedisA2ADeliveryStore(client, namespace=self._namespace, clock=clock)


class Valkey(Redis):
    """Valkey 9, each write synced."""

    server = "disk_server"
    capabilities = Capabilities(durability="disk", shared=True, renews_when_blocked=True)


class RedisCluster(Redis):
    """A cluster of three: each check's namespace is on one of its nodes."""

    server = "cluster"


SUBJECTS = [Memory, SQLite, Redis, Valkey, RedisCluster]


@pytest.fixture(params=SUBJECTS, ids=lambda subject: subject.__name__)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    kind = request.param
    if not issubclass(kind, Redis):
        return kind(tmp_path)
    return kind(tmp_path, request.getfixturevalue(kind.server).url)


@pytest.mark.timeout(120)  # 64 interpreters start in one of them
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(check: Check, subject: Subject) -> None:
    await check(subject)
