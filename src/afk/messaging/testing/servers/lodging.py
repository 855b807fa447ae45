"""Room for a program that refuses to run as root."""

from __future__ import annotations

import atexit
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pwd import struct_passwd

_ACCOUNTS = ("postgres", "nobody")


@contextmanager
def lodging(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """A folder of its own: how the program has to call it, and what subprocess has to know.

    When we are root it runs as somebody else, who may have no way there: pytest's folders, say,
    let nobody through. So it is handed the folder open, and the name is that of the handle.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        yield str(folder.absolute()), {}
        return
    account = _somebody()
    shutil.chown(folder, account.pw_uid, account.pw_gid)
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield (
            f"/proc/self/fd/{handle}",
            {
                "user": account.pw_uid,
                "group": account.pw_gid,
                "extra_groups": (),
                "pass_fds": (handle,),
                "cwd": "/",
            },
        )
    finally:
        os.close(handle)


@cache
def reachable(programs: Path) -> Path:
    """The folder of an installation that such a program runs from.

    As root, when somebody else has no way there (it may be below /root), a copy for this run.
    """
    way = [programs.resolve(), *programs.resolve().parents]
    if os.geteuid() != 0 or all(folder.stat().st_mode & stat.S_IXOTH for folder in way):
        return programs
    copy = Path(mkdtemp())
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    copy.chmod(0o755)
    package = programs.parent.parent
    libraries = package.with_name(f"{package.name}.libs")  # a wheel has them beside the package
    for part in (programs.parent, *filter(Path.exists, [libraries])):
        shutil.copytree(part, copy / part.relative_to(package.parent), symlinks=True)
    return copy / programs.relative_to(package.parent)


def _somebody() -> struct_passwd:
    import pwd  # not everywhere

    for name in _ACCOUNTS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise LookupError(f"none of these users is known here: {', '.join(_ACCOUNTS)}")
