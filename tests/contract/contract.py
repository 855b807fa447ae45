"""The checks of the suite as a test, one for each check."""

from __future__ import annotations

from typing import Any

import pytest

from afk.messaging.testing import CHECKS, Check, Subject


def contract_of(kind: type[Subject], *modules: str) -> Any:
    """The test that stores of this kind keep the contract; modules: only these of the checks."""
    checks = [c for c in CHECKS if not modules or c.__module__.rpartition(".")[2] in modules]
    assert checks

    @pytest.mark.timeout(120)  # 64 interpreters start in one of them
    @pytest.mark.parametrize("kind", [kind], ids=lambda kind: kind.__name__)
    @pytest.mark.parametrize("check", checks, ids=lambda check: check.__name__)
    async def test_contract(check: Check, subject: Subject) -> None:
        await check(subject)

    return test_contract
