"""Stories on simulated time, in a small size."""

import os
import subprocess
import sys
from typing import Any

import pytest

from afk.messaging.lifecycle import FINAL, parse_token
from afk.messaging.stores.ledger import Ledger
from proof.parts.simulation import PART
from proof.parts.simulation.story import tell

from .small import place, small

__all__ = ["place"]

test_nothing_breaks = small(PART, 400)  # other tests run beside it


def test_the_command_prints_the_trace_of_a_seed() -> None:
    command = [sys.executable, "-m", "proof.parts.simulation", "7"]
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    assert printed.stdout == tell(7).trace
    assert printed.stdout.count(b"\n") > 20


def test_a_store_that_takes_old_tokens_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def any_token(self: Ledger, token: str) -> Any:
        row = self.books.rows.get(parse_token(token)[0])
        return row if row is not None and row.state not in FINAL else None

    monkeypatch.setattr(Ledger, "held", any_token)
    assert any("fence" in sentence for seed in range(200) for sentence in tell(seed).wrong)


def test_a_consumer_that_relies_on_hints_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def heard(self: Any, deadline: float | None) -> bool:
        await self._bell.wait(1e6)
        return True

    monkeypatch.setattr("afk.messaging.listening.Listening.heard", heard)
    assert any("drain" in sentence for seed in range(50) for sentence in tell(seed).wrong)
