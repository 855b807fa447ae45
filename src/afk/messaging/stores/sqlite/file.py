"""Opening the database file: what it may be, how it is set, which schema it has."""

from __future__ import annotations

import os
import sqlite3
from importlib.resources import files
from pathlib import Path

from ...errors import ConfigurationError, MessagingError, StoreError

NETWORK = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "9p", "ncpfs")
)
"""Filesystems on which several hosts may open a file: WAL needs the memory of one host."""

OLDEST_SQLITE = (3, 35, 0)


def check_place(path: Path) -> None:
    """ConfigurationError if the database cannot live here."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise ConfigurationError(
            f"SQLite {sqlite3.sqlite_version} is older than 3.35; update Python"
        )
    if path.is_dir():
        raise ConfigurationError(
            f"{path} is a directory; name a file in it, such as {path}/team.db"
        )
    if not path.parent.is_dir():
        raise ConfigurationError(f"{path.parent} is not a directory; create it first")
    kind = filesystem(path.resolve(), _mounts())
    if kind in NETWORK or kind.startswith("fuse.sshfs"):
        raise ConfigurationError(
            f"{path} is on a network filesystem ({kind}), where SQLite's write-ahead log is not"
            " safe; use a local disk, or a server store for several machines"
        )


def filesystem(path: Path, mounts: str) -> str:
    """The type of the filesystem `path` is on, by the text of /proc/mounts; "" if unknown."""
    best, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        if len(point) >= len(best) and path.is_relative_to(point):
            best, kind = point, fields[2]
    return kind


def _mounts() -> str:
    try:
        return Path("/proc/mounts").read_text("utf-8", "replace")
    except OSError:  # not Linux
        return ""


def create(path: Path) -> None:
    """Make sure the file is there, readable by its owner alone if it is new."""
    try:
        # Exclusive: opening and closing a database that is in use would drop SQLite's locks.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be created: {error.strerror}") from error


def connect(path: Path, synchronous: str) -> sqlite3.Connection:
    """A connection set as the store needs it, the schema up to date. Hold the lock."""
    try:
        db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise explained(path, error) from error
    try:
        mode = db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            raise ConfigurationError(f"{path}: no write-ahead log here (journal mode {mode})")
        db.execute(f"PRAGMA synchronous={synchronous}")
        # On macOS a plain fsync leaves the data in the drive's cache; elsewhere these do nothing.
        db.execute("PRAGMA fullfsync=1")
        db.execute("PRAGMA checkpoint_fullfsync=1")
        db.execute("PRAGMA journal_size_limit=67108864")
        migrate(path, db)
    except sqlite3.Error as error:
        db.close()
        raise explained(path, error) from error
    except BaseException:
        db.close()
        raise
    return db


def explained(path: Path, error: sqlite3.Error) -> MessagingError:
    """Why the file could not be opened, with the fix."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return ConfigurationError(f"{path} is not an SQLite database; name another file")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return ConfigurationError(
            f"{path} cannot be opened for writing ({error}); check its and its folder's permissions"
        )
    return StoreError(f"{path}: {error}")


def migrations() -> list[str]:
    """The schema's versions, in order; the n-th text brings version n."""
    folder = files(__package__) / "schema"
    return [
        entry.read_text("utf-8")
        for entry in sorted(folder.iterdir(), key=lambda e: e.name)
        if entry.name.endswith(".sql")
    ]


def migrate(path: Path, db: sqlite3.Connection) -> None:
    """Bring the schema up to date, each step and its number in one transaction."""
    steps = migrations()
    db.execute("CREATE TABLE IF NOT EXISTS afk_schema (version INTEGER NOT NULL)")
    version = db.execute("SELECT coalesce(max(version), 0) FROM afk_schema").fetchone()[0]
    if version > len(steps):
        raise ConfigurationError(
            f"{path} was written by a newer afk-messaging (schema {version}, this one knows"
            f" {len(steps)}); upgrade the package"
        )
    for number, step in enumerate(steps[version:], version + 1):
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements(step):
                db.execute(statement)
            db.execute("INSERT INTO afk_schema VALUES (?)", (number,))
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise


def _statements(script: str) -> list[str]:
    """Single statements: `executescript` would commit between them."""
    statements, text = [], ""
    for line in script.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            statements.append(text)
            text = ""
    return statements
