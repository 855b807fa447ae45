"""What is kept of earlier runs."""

from __future__ import annotations

import json
from pathlib import Path

from proof.runner import forget


def test_only_what_is_made_anew_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "crash.json"
    path.write_text(json.dumps({"redis: killed": {"rounds": 1}, "sqlite: killed": {"rounds": 2}}))
    forget("crash", ["redis", "nats"], tmp_path)
    assert json.loads(path.read_text("utf-8")) == {"sqlite: killed": {"rounds": 2}}
    forget("power", ["redis"], tmp_path)  # of which nothing is kept
    assert list(tmp_path.iterdir()) == [path]
