"""A store keeps the contract if every check passes on it; each store has a file of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from afk.messaging.testing import Subject

from .subjects import Served


@pytest.fixture
def subject(kind: type[Subject], request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    """A new one for each check."""
    if issubclass(kind, Served):
        return kind(tmp_path, request.getfixturevalue(kind.server).url)
    return kind(tmp_path)
