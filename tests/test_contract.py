"""Every store keeps every promise of the contract."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from afk.messaging import Capabilities, InMemoryA2ADeliveryStore, SQLiteA2ADeliveryStore
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


SUBJECTS = [Memory, SQLite]


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.__name__)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(check: Check, subject: type[Subject], tmp_path: Path) -> None:
    await check(subject(tmp_path))
