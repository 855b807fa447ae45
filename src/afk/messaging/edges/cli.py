"""The `afk` command. This file needs nothing but Python; `commands` needs the `[cli]` extra."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

NEEDED = ("cyclopts", "rich")


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line, or these words; without the extra, say in one line what to install."""
    if any(find_spec(name) is None for name in NEEDED):
        sys.exit('the afk command needs: pip install "afk-messaging[cli]"')
    from cyclopts import CycloptsError

    from afk.messaging.edges.commands import app
    from afk.messaging.edges.commands.place import BAD_INPUT, fail

    # A file name that the terminal's encoding cannot show is no reason to fail.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="replace")
    try:
        app(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        fail(f"{error} (see: afk --help)", BAD_INPUT)
    except BrokenPipeError:
        # The reader (`| head`) has gone. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        # Python ends by the signal then, and not with a code: a shell's loop around it ends too.
        sys.excepthook = lambda *_: None
        raise


if __name__ == "__main__":
    main()
