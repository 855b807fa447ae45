"""The scripts in examples/ run as they are, in an empty folder, and twice in the same one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

SAYS = {
    "two_agents.py": ["writer says: A short text about bees.", "archive: asked about bees"],
    "worker_pool.py": [f"squares: {[n * n for n in range(20)]}"],
    "effects_once.py": ["mail for the auditor: 3", "ledger: 3 rows, 60 in all"],
}


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_example(name: str, tmp_path: Path) -> None:
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "error", EXAMPLES / name],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert [line for line in SAYS[name] if line not in lines] == []
