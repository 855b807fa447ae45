"""The SQLite store and its file: what it refuses, survives, and leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from afk.messaging import (
    ConfigurationError,
    MessageBus,
    SQLiteA2ADeliveryStore,
    SQLiteMessageBus,
    StoreError,
    UsageError,
    connect,
)
from afk.messaging.stores.sqlite import file
from afk.messaging.stores.sqlite.lock import LockFile
from afk.messaging.testing.steps import until

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions, signals and fork")


def child(source: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


async def send_one(path: Path) -> None:
    async with SQLiteMessageBus(path) as bus:
        mailbox = await bus.register("a")
        await mailbox.send("a", "kept")


async def count(path: Path) -> int:
    async with SQLiteMessageBus(path) as bus:
        return await (await bus.register("a")).message_count()


@posix
async def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    async with SQLiteMessageBus(tmp_path / "mail.db") as bus:
        await bus.register("a")
        modes = _modes(tmp_path)
    assert modes == dict.fromkeys(("mail.db", "mail.db-wal", "mail.db-shm", "mail.db.lock"), 0o600)


def _modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (lambda tmp: tmp, "is a directory"),
        (lambda tmp: tmp / "none" / "mail.db", "is not a directory"),
        ("_text_file", "is not an SQLite database"),
        ("_newer", "newer afk-messaging"),
    ],
    ids=["directory", "no folder", "text", "newer"],
)
async def test_what_cannot_be_opened_says_why(tmp_path, place, words) -> None:
    path = globals()[place](tmp_path) if isinstance(place, str) else place(tmp_path)
    with pytest.raises(ConfigurationError, match=words) as caught:
        await send_one(path)
    assert str(path.parent) in str(caught.value)


def _text_file(folder: Path) -> Path:
    path = folder / "notes.txt"
    path.write_text("no database, but long enough to be one. " * 40)
    return path


def _newer(folder: Path) -> Path:
    path = folder / "newer.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE afk_schema (version INTEGER NOT NULL)")
        db.execute("INSERT INTO afk_schema VALUES (999)")
        db.commit()
    return path


def test_a_network_filesystem_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = f"/dev/sda1 / ext4 rw 0 0\nserver:/x {tmp_path.resolve()} nfs4 rw 0 0\n"
    assert file.filesystem(tmp_path.resolve() / "mail.db", mounts) == "nfs4"
    assert file.filesystem(Path("/etc/mail.db"), mounts) == "ext4"
    monkeypatch.setattr(file, "_mounts", lambda: mounts)
    with pytest.raises(ConfigurationError, match=r"network filesystem .nfs4."):
        file.check_place(tmp_path / "mail.db")


@posix
def test_without_permission_it_says_so(tmp_path: Path) -> None:
    source = """
import asyncio, os, sys
import sqlite3
from afk.messaging import ConfigurationError, SQLiteA2ADeliveryStore, SQLiteMessageBus
from afk.messaging.stores.sqlite import file
steps = file.migrations()
file.migrations = lambda: steps  # read while this process still may
if os.getuid() == 0:
    os.setuid(65534)
async def main():
    try:
        async with SQLiteMessageBus(sys.argv[1]):
            print("opened")
    except ConfigurationError as error:
        print(error)
asyncio.run(main())
"""
    tmp_path.chmod(0o555)
    parents = [p for p in tmp_path.parents if p != p.parent and p.stat().st_uid == os.getuid()]
    for parent in parents:
        parent.chmod(parent.stat().st_mode | 0o055)
    said, _ = child(source, tmp_path / "mail.db").communicate(timeout=30)
    assert "cannot be created: Permission denied" in said
    path = tmp_path / "read-only.db"
    path.touch()
    path.chmod(0o444)
    said, _ = child(source, path).communicate(timeout=30)
    assert "permission" in said.lower()


async def test_memory_durability_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="outlives its process"):
        connect(f"sqlite:///{tmp_path}/mail.db?durability=memory")


@pytest.mark.parametrize(("durability", "synchronous"), [("disk", 2), ("process", 1)])
async def test_durability_is_the_setting_of_the_file(tmp_path, durability, synchronous) -> None:
    async with connect(f"sqlite:///{tmp_path}/mail.db?durability={durability}") as bus:
        receipt = await (await bus.register("a")).send("a", 1)
        assert (bus.durability, receipt.durability) == (durability, durability)
        async with await _delivery(bus) as delivery, delivery.transaction() as db:
            assert db.execute("PRAGMA synchronous").fetchone() == (synchronous,)
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def _delivery(bus):
    delivery = await (await bus.register("a")).claim(timeout=5)
    assert delivery is not None
    return delivery


async def test_the_files_own_tables_and_yours_live_together(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE mine (x)")
        db.execute("PRAGMA user_version = 7")
        db.commit()
    await send_one(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (7,)
        assert db.execute("SELECT count(*) FROM mine").fetchone() == (0,)


# -- migrations --------------------------------------------------------------------------


async def test_an_older_file_is_brought_up_to_date(tmp_path, monkeypatch) -> None:
    path = tmp_path / "mail.db"
    await send_one(path)
    steps = [*file.migrations(), "CREATE TABLE afk_later (x);\nINSERT INTO afk_later VALUES (1);\n"]
    monkeypatch.setattr(file, "migrations", lambda: steps)
    assert await count(path) == 1
    assert await count(path) == 1  # once only
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT x FROM afk_later").fetchall() == [(1,)]


async def test_a_failed_migration_changes_nothing(tmp_path, monkeypatch) -> None:
    path = tmp_path / "mail.db"
    await send_one(path)
    steps = [*file.migrations(), "CREATE TABLE afk_later (x);\nSELECT no_such_column;\n"]
    with monkeypatch.context() as patched:
        patched.setattr(file, "migrations", lambda: steps)
        with pytest.raises(StoreError, match="no_such_column"):
            await count(path)
    assert await count(path) == 1


@posix
async def test_a_migration_killed_in_the_middle_is_done_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    await send_one(path)
    source = """
import asyncio, os, signal, sqlite3, sys
from afk.messaging import SQLiteMessageBus
from afk.messaging.stores.sqlite import file
real = sqlite3.connect
def connect(*arguments, **options):
    db = real(*arguments, **options)
    db.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
    return db
file.sqlite3.connect = connect
steps = file.migrations() + ["CREATE TABLE afk_later (x);\\nINSERT INTO afk_later SELECT die();\\n"]
file.migrations = lambda: steps
async def main():
    async with SQLiteMessageBus(sys.argv[1]):
        print("survived")
asyncio.run(main())
"""
    process = child(source, path)
    said, _ = process.communicate(timeout=30)
    assert (process.returncode, said) == (-signal.SIGKILL, "")
    assert await count(path) == 1


# -- trouble -----------------------------------------------------------------------------


@posix
def test_the_lock_file_has_its_room_from_the_start(tmp_path: Path) -> None:
    """It is used as memory: on a full disk a hole in it would end the process, with SIGBUS."""
    LockFile(tmp_path / "mail.db.lock").close()
    assert (tmp_path / "mail.db.lock").stat().st_blocks > 0


async def test_a_full_disk_fails_the_send_and_works_again(tmp_path: Path) -> None:
    async with SQLiteMessageBus(tmp_path / "mail.db") as bus:
        mailbox = await bus.register("a")
        db = bus._core.store._engine.writer._db
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages + 100}")
        sent = 0

        async def fill() -> None:
            nonlocal sent
            while True:
                await mailbox.send("a", "x" * 10_000)
                sent += 1

        with pytest.raises(StoreError, match="full") as caught:
            await fill()
        assert caught.value.message.content == "x" * 10_000
        assert caught.value.key == caught.value.message.id
        assert await mailbox.message_count() == sent > 0
        db.execute("PRAGMA max_page_count = 1000000")
        again = await bus.deliver(caught.value.message)
        assert not again.duplicate
        assert await mailbox.message_count() == sent + 1


@posix
def test_a_failing_write_is_a_store_error_and_the_file_is_reopened(tmp_path: Path) -> None:
    source = """
import asyncio, os, resource, sys
from afk.messaging import SQLiteMessageBus, StoreError
async def main():
    async with SQLiteMessageBus(sys.argv[1]) as bus:
        mailbox = await bus.register("a")
        await mailbox.send("a", 1)
        size = os.stat(sys.argv[1] + "-wal").st_size
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # every further write fails
        try:
            await mailbox.send("a", "x" * 100_000)
            print("sent")
        except StoreError:
            print("failed")
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await mailbox.send("a", 2)
        print(await mailbox.message_count())
asyncio.run(main())
"""
    said, _ = child(source, tmp_path / "mail.db").communicate(timeout=30)
    assert said.split() == ["failed", "2"]
    with contextlib.closing(sqlite3.connect(tmp_path / "mail.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def hold(path: Path) -> subprocess.Popen[str]:
    source = """
import sys
from pathlib import Path
from afk.messaging.stores.sqlite.lock import LockFile
from afk.messaging.testing.steps import until
with LockFile(Path(sys.argv[1])).held():
    print("held", flush=True)
    sys.stdin.read()
"""
    return subprocess.Popen(
        [sys.executable, "-c", source, f"{path}.lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@posix
async def test_a_lock_held_too_long_is_an_error_that_names_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    await send_one(path)
    holder = hold(path)
    bus = SQLiteMessageBus(path, patience=0.3)
    try:
        mailbox = await bus.register("a")
        assert holder.stdout is not None
        await asyncio.to_thread(holder.stdout.readline)
        with pytest.raises(StoreError, match=f"locked by process {holder.pid}; nothing was stored"):
            await mailbox.send("a", "late")
    finally:
        holder.communicate(timeout=30)
    assert await mailbox.message_count() == 1
    await bus.aclose()


@posix
async def test_a_lock_held_too_long_keeps_nobody_from_giving_up_the_opening(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    await send_one(path)
    before = writers(), open_files(path)
    holder = hold(path)
    try:
        assert holder.stdout is not None
        await asyncio.to_thread(holder.stdout.readline)
        with pytest.raises(StoreError, match=f"locked by process {holder.pid}; it could not"):
            await SQLiteMessageBus(path, patience=0.3).agents()
    finally:
        holder.communicate(timeout=30)
    await until(lambda: (writers(), open_files(path)) == before, "the thread tidies up")


def writers() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("afk-sqlite")]


def open_files(path: Path) -> int:
    """How many of the store's files this process has open."""
    return sum(
        str(path) in str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.exists()
    )


@posix
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
async def test_a_fork_is_noticed(tmp_path: Path) -> None:
    async with SQLiteMessageBus(tmp_path / "mail.db") as bus:
        mailbox = await bus.register("a")
        pid = os.fork()
        if pid == 0:
            os._exit(_exit_code(mailbox.send("a", "from the child"), "forked"))
        assert os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1]) == 0
        await mailbox.send("a", "from the parent")
        assert await mailbox.message_count() == 1


def _exit_code(call, words: str) -> int:
    try:
        asyncio.run(call)
    except UsageError as error:
        return 0 if words in str(error) else 1
    except BaseException:  # noqa: BLE001 - whatever it is, the child must not go on
        return 2
    return 3


@posix
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
async def test_a_store_opened_before_a_fork_says_so(tmp_path: Path) -> None:
    store = SQLiteA2ADeliveryStore(tmp_path / "mail.db")
    await store.open()
    pid = os.fork()
    if pid == 0:
        os._exit(_exit_code(MessageBus(store).agents(), "before a fork"))
    assert os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1]) == 0
    await store.close()


async def test_what_waits_together_commits_together(tmp_path: Path) -> None:
    async with SQLiteMessageBus(tmp_path / "mail.db") as bus:
        mailbox = await bus.register("a")
        lock = LockFile(tmp_path / "mail.db.lock")
        before = lock.writes
        await asyncio.gather(*(mailbox.send("a", n) for n in range(200)))
        assert lock.writes - before <= 10
        lock.close()


async def test_one_bad_operation_does_not_fail_its_neighbours(tmp_path: Path) -> None:
    store = SQLiteA2ADeliveryStore(tmp_path / "mail.db")
    await store.open()
    engine = store._engine

    def bad(step) -> None:
        step.db.execute("INSERT INTO afk_counter VALUES (1, 2, 3, 4)")

    def good(step) -> int:
        return step.db.execute("SELECT 42").fetchone()[0]

    results = await asyncio.gather(
        engine.do(good), engine.do(bad), engine.do(good), return_exceptions=True
    )
    assert (results[0], results[2]) == (42, 42)
    assert isinstance(results[1], StoreError)
    await store.close()


async def test_closing_leaves_no_thread_and_no_open_file(tmp_path: Path) -> None:
    for _ in range(3):
        await send_one(tmp_path / "mail.db")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("afk")]
    assert not [name for name in _open_files() if name.startswith(str(tmp_path))]


def _open_files() -> list[str]:
    names = []
    for fd in Path("/proc/self/fd").glob("*"):  # nothing where there is no /proc
        with contextlib.suppress(OSError):
            names.append(str(fd.readlink()))
    return names


@posix
async def test_killed_writers_leave_a_sound_file_and_all_they_accepted(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    source = """
import asyncio, sys
from afk.messaging import SQLiteMessageBus
async def main():
    bus = SQLiteMessageBus(sys.argv[1])
    mailbox = await bus.register("a")
    async def sender(k):
        n = 0
        while True:
            await mailbox.send("a", [k, n], idempotency_key=f"{sys.argv[2]}:{k}:{n}")
            print(k, n, flush=True)
            n += 1
    await asyncio.gather(*(sender(k) for k in range(8)))
asyncio.run(main())
"""
    accepted = 0
    for cycle in range(6):
        process = child(source, path, cycle)
        assert process.stdout is not None
        for _ in range(40 + 7 * cycle):
            await asyncio.to_thread(process.stdout.readline)
        process.send_signal(signal.SIGKILL)
        rest = await asyncio.to_thread(process.stdout.read)
        process.stdout.close()
        process.wait()
        accepted += 40 + 7 * cycle + rest.count("\n")
    stored = await count(path)
    # Each kill may cut off eight sends that were stored and not yet said so.
    assert accepted <= stored <= accepted + 6 * 8
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT open FROM afk_mailbox").fetchone() == (stored,)


async def test_a_send_that_is_repeated_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "team.db"
    async with SQLiteMessageBus(path) as bus:
        ada = await bus.register("ada")
        receipt = await ada.send("ada", "once")
        with contextlib.closing(sqlite3.connect(path)) as other:
            before = other.execute("PRAGMA data_version").fetchone()
            again = await bus.deliver(receipt.message)
            after = other.execute("PRAGMA data_version").fetchone()
    assert (again.id, again.duplicate) == (receipt.id, True)
    assert after == before, "another process would look for news"
