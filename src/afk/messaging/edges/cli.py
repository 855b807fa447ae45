"""The `afk` command. This file needs nothing but Python; `commands` needs the `[cli]` extra."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

NEEDED = ("cyclopts", "rich")


def main() -> None:
    """Run the command line; without the extra, say in one line what to install."""
    if any(find_spec(name) is None for name in NEEDED):
        sys.exit('the afk command needs: pip install "afk-messaging[cli]"')
    from afk.messaging.edges.commands import app

    # A file name that the terminal's encoding cannot show is no reason to fail.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="replace")
    try:
        app()
    except BrokenPipeError:
        # The reader (`| head`) has gone. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
