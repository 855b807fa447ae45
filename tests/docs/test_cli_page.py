"""What the page on `afk` types is run, in its order; what it shows is what is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
ID = re.compile(r"^[0-9a-f]{32}$", re.MULTILINE)


def steps() -> list[tuple[str, str]]:
    """Each command of the console blocks, and what the page says it prints."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[1:]:
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            # A command goes on as long as a quote is open.
            lines = part.splitlines()
            end = next(
                n for n in range(1, len(lines) + 1) if "\n".join(lines[:n]).count("'") % 2 == 0
            )
            found.append(("\n".join(lines[:end]), "\n".join(lines[end:])))
    return found


def test_the_session_goes_as_it_is_shown(tmp_path: Path) -> None:
    lines = [f"echo --- {number}\n{typed}" for number, (typed, _) in enumerate(steps())]
    script = "\n".join(["set -euo pipefail", *lines])
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
    }
    for name in ("AFK_MESSAGING_URL", "AFK_CONTEXT", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        environment.pop(name, None)
    done = subprocess.run(
        ["bash", "-c", script],
        check=False,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed = re.split(r"^--- \d+\n", done.stdout, flags=re.MULTILINE)[1:]
    for (typed, shown), said in zip(steps(), printed, strict=True):
        if shown:
            assert ID.sub("ID", said.strip()) == ID.sub("ID", shown.strip()), typed
