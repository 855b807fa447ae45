"""The stores, each in every way it is set up here: what the contract is checked on."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from redis import asyncio as redis

from afk.messaging import (
    A2ADeliveryStore,
    Capabilities,
    InMemoryA2ADeliveryStore,
    NATSA2ADeliveryStore,
    PostgresA2ADeliveryStore,
    RedisA2ADeliveryStore,
    SQLiteA2ADeliveryStore,
)
from afk.messaging.testing import Subject


class Memory(Subject):
    title = "memory"
    capabilities = Capabilities(durability="memory", renews_when_blocked=True, instant=True)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._store: InMemoryA2ADeliveryStore | None = None

    def store(self, clock: Callable[[], float] | None = None) -> InMemoryA2ADeliveryStore:
        if self._store is None:
            self._store = InMemoryA2ADeliveryStore(clock=clock or time.time)
        return self._store


class SQLite(Subject):
    title = "SQLite"
    capabilities = Capabilities(
        durability="disk", shared=True, renews_when_blocked=True, transactions=True
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.url = f"sqlite:///{folder}/mail.db"

    def store(self, clock: Callable[[], float] | None = None) -> SQLiteA2ADeliveryStore:
        return SQLiteA2ADeliveryStore(self.folder / "mail.db", clock=clock or time.time)


class Served(Subject):
    """A namespace of its own on a server that all checks share. server: its fixture."""

    server: ClassVar[str]
    options = ""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder)
        self.namespace = uuid.uuid4().hex
        self.place = url
        self.url = f"{url}?namespace={self.namespace}{self.options}"

    def store(self, clock: Callable[[], float] | None = None) -> A2ADeliveryStore:
        raise NotImplementedError


class Redis(Served):
    """Redis 7, synced every second."""

    title = "Redis"
    server = "redis_server"
    capabilities = Capabilities(durability="process", shared=True, renews_when_blocked=True)

    def store(self, clock: Callable[[], float] | None = None) -> A2ADeliveryStore:
        client = redis.Redis.from_url(self.place)
        return RedisA2ADeliveryStore(client, namespace=self.namespace, clock=clock)


class Valkey(Redis):
    """Valkey 9, each write synced."""

    server = "disk_server"
    capabilities = Capabilities(durability="disk", shared=True, renews_when_blocked=True)


class RedisCluster(Redis):
    """A cluster of three: each check's namespace is on one of its nodes."""

    server = "cluster"


class Postgres(Served):
    """PostgreSQL 18."""

    title = "PostgreSQL"
    server = "postgres18"
    capabilities = Capabilities(
        durability="disk",
        shared=True,
        renews_when_blocked=True,
        transactions=True,
        outbox=True,
    )

    def store(self, clock: Callable[[], float] | None = None) -> A2ADeliveryStore:
        return PostgresA2ADeliveryStore(self.place, namespace=self.namespace, clock=clock)


class Postgres15(Postgres):
    """PostgreSQL 15, through PgBouncer: each transaction may be on another connection."""

    server = "pgbouncer"


class NATS(Served):
    """One NATS server."""

    title = "NATS"
    server = "nats_server"
    capabilities = Capabilities(durability="process", shared=True, renews_when_blocked=True)

    def store(self, clock: Callable[[], float] | None = None) -> A2ADeliveryStore:
        return NATSA2ADeliveryStore(self.place, namespace=self.namespace, clock=clock)


class NATSCluster(NATS):
    """Three NATS servers that sync each write, which they do not tell."""

    server = "nats_cluster"
    options = "&durability=disk"
    capabilities = Capabilities(
        durability="disk", asserted=True, shared=True, renews_when_blocked=True
    )

    def store(self, clock: Callable[[], float] | None = None) -> A2ADeliveryStore:
        return NATSA2ADeliveryStore(
            self.place, namespace=self.namespace, durability="disk", clock=clock
        )


SUBJECTS = [
    Memory,
    SQLite,
    Postgres,
    Postgres15,
    Redis,
    Valkey,
    RedisCluster,
    NATS,
    NATSCluster,
]
