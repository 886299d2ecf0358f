"""SQLite: what a file must be to become a store, and what it is from then on."""

# ruff: noqa: ASYNC240 - what a test waits for on the disk is there

import asyncio
import ctypes
import os
import stat
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from afterward.errors import StoreError, StoreUnusable
from afterward.job import Placement, Process, Stored
from afterward.stores.base import Schema
from afterward.stores.rows import text_of
from afterward.stores.sql import load_migrations
from afterward.stores.sqlite import SQLiteStore
from afterward.stores.sqlite.files import refuse_network_file_system
from tests.support.stores import OOPS, OtherProcess, ids_of, new_job, put

pytestmark = pytest.mark.anyio

PACKAGE = "afterward.stores.sqlite"

RETRIED = """
INSERT INTO jobs (
    id, task, queue, priority, status, due, run_at, created_at, started_at, arguments, attempt, failures, deaths,
    failure, finished_at
)
VALUES (?, 'app:send', 'default', 0, ?, 1, 10, 10, 11, '{}', 1, ?, ?, ?, ?)
"""
FAILED_ONCE = """
INSERT INTO attempts (job, number, outcome, started_at, ended_at, failure) VALUES (?, 1, 'retry', 11, 12, ?)
"""


async def opened_and_closed(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open()
    await store.close()


def make_older(path: Path, version: int) -> None:
    """A file as a version before has left it."""
    with connected(path) as connection:
        for number, statements in load_migrations(PACKAGE)[:version]:
            connection.execute(statements)
            connection.pragma("user_version", number)
        if version:
            connection.pragma("application_id", 0x61667477)


@contextmanager
def connected(path: Path) -> Generator[apsw.Connection]:
    connection = apsw.Connection(str(path))
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def every_connection() -> Generator[list[apsw.Connection]]:
    """The connections that are made while the block lasts."""
    made: list[apsw.Connection] = []
    apsw.connection_hooks.append(made.append)
    try:
        yield made
    finally:
        apsw.connection_hooks.remove(made.append)


def schema(connection: apsw.Connection) -> list[tuple[str, str]]:
    """Everything that is declared, as SQLite tells it, in no order."""
    rows = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    return sorted((str(name), " ".join(str(sql).split())) for name, sql in rows)


# The engine and its settings.


def test_the_engine_is_one_that_does_not_corrupt_a_wal() -> None:
    """SQLite 3.7.0 to 3.51.2 can, when several connections checkpoint."""
    assert tuple(map(int, apsw.sqlite_lib_version().split("."))) >= (3, 51, 3)


async def test_the_connection_that_writes_waits_for_the_disk(tmp_path: Path) -> None:
    """`synchronous` is FULL (2) and the journal is a WAL, on the connection itself, and again after a reopening."""
    store = SQLiteStore(tmp_path / "jobs.db")
    for _ in range(2):
        with every_connection() as connections:
            await store.open()
        [connection] = connections
        assert connection.pragma("synchronous") == 2
        assert connection.pragma("journal_mode") == "wal"
        assert connection.pragma("foreign_keys") == 1
        await store.close()


async def test_each_commit_reaches_the_disk_before_it_is_answered(tmp_path: Path) -> None:
    """The WAL is synced at least once between an operation's beginning and its answer."""
    with counted_syncs() as syncs:
        store = SQLiteStore(tmp_path / "jobs.db")
        await store.open()
        for _ in range(5):
            before = syncs()
            await put(store, new_job())
            assert syncs() > before
        await store.close()


@contextmanager
def counted_syncs() -> Generator[Callable[[], int]]:
    """How often SQLite has synced a WAL, in files that are opened while the block lasts."""
    count = 0
    [base, *_] = apsw.vfs_names()

    class File(apsw.VFSFile):
        def __init__(self, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
            super().__init__(base, name, flags)
            self._is_wal = bool(flags[0] & apsw.SQLITE_OPEN_WAL)

        def xSync(self, flags: int) -> None:  # noqa: N802
            nonlocal count
            super().xSync(flags)
            count += self._is_wal

    class System(apsw.VFS):
        def __init__(self) -> None:
            super().__init__("counting", base, makedefault=True)

        def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> File:  # noqa: N802
            return File(name, flags)

    system = System()
    try:
        yield lambda: count
    finally:
        system.unregister()


# The schema.


async def test_the_schema_is_that_of_all_migrations(tmp_path: Path) -> None:
    await opened_and_closed(tmp_path / "jobs.db")
    with connected(tmp_path / "jobs.db") as ours, apsw.Connection(":memory:") as plain:
        for _, statements in load_migrations(PACKAGE):
            plain.execute(statements)
        assert schema(ours) == schema(plain)
        assert ours.pragma("user_version") == load_migrations(PACKAGE)[-1][0]


def test_migrations_are_numbered_from_1_without_a_gap() -> None:
    numbers = [number for number, _ in load_migrations(PACKAGE)]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    store = SQLiteStore(path)
    await store.open()
    [id_] = await put(store, new_job())
    await store.close()
    with connected(path) as connection:
        before = schema(connection), connection.pragma("schema_version")
    await store.open()
    assert [job.id for job in await store.list()] == [id_]
    await store.close()
    with connected(path) as connection:
        assert (schema(connection), connection.pragma("schema_version")) == before


async def test_every_older_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    """Also one whose process was killed between creating the file and its first migration."""
    migrations = load_migrations(PACKAGE)
    for version in range(len(migrations)):
        path = tmp_path / f"version-{version}.db"
        make_older(path, version)
        before = path.read_bytes()
        assert await SQLiteStore(path).schema() == Schema(version, len(migrations))
        assert path.read_bytes() == before
        await opened_and_closed(path)
        with connected(path) as connection:
            assert connection.pragma("user_version") == len(migrations)


async def test_what_was_tried_again_before_is_in_its_group(tmp_path: Path) -> None:
    """At the time that its attempts tell; not what a person has retried, nor what only a death has queued again."""
    path, oops = tmp_path / "jobs.db", text_of(OOPS)
    make_older(path, 8)
    with connected(path) as connection:
        for id_, status, failures, deaths, failure in (
            ("again", "queued", 1, 0, oops), ("runs", "running", 2, 0, oops), ("done", "succeeded", 1, 0, oops),
            ("by hand", "queued", 0, 0, oops), ("died", "queued", 0, 1, None),
        ):  # fmt: skip
            connection.execute(RETRIED, (id_, status, failures, deaths, failure, 14 if status == "succeeded" else None))
            connection.execute(FAILED_ONCE, (connection.last_insert_rowid(), failure))
    store = SQLiteStore(path)
    await store.open()
    [group] = await store.failures(10)
    assert (group.count, group.retrying, group.last_at.timestamp()) == (0, 2, 12)
    assert await ids_of(store, signature="") == ["runs", "again"]
    await store.close()


async def test_ten_processes_open_a_new_file_at_the_same_moment(tmp_path: Path) -> None:
    """Each succeeds, the migrations are applied once, and what each stores is there. Twenty times."""
    processes: list[OtherProcess] = []
    try:
        for number in range(20):
            folder = tmp_path / str(number)
            folder.mkdir()
            processes = processes or [OtherProcess("sqlite", str(folder / "jobs.db"), 0) for _ in range(10)]
            for process in processes:
                process.begin("move", str(folder / "jobs.db"))
            for process in processes:
                process.answer()
            for process in processes:
                process.begin("open")
            for process in processes:
                process.answer()
            for process in processes:
                process.begin("enqueue", [(new_job(), Placement.free)], None)
            assert [process.answer() for process in processes] == [[Stored.stored]] * 10
            for process in processes:
                process.call("close")
            with connected(folder / "jobs.db") as connection:
                assert connection.pragma("integrity_check") == "ok"
                assert connection.execute("SELECT count(*) FROM jobs").get == 10
    finally:
        for process in processes:
            process.kill()


async def test_one_process_migrates_while_another_looks(tmp_path: Path) -> None:
    """Between any two statements of an opening, another may create the schema: the file is ours all the same."""
    for stop in range(1, 12):
        path = tmp_path / f"after-{stop}.db"
        statements = 0
        ours: list[apsw.Connection] = []

        def look(
            connection: apsw.Connection, path: Path = path, stop: int = stop, ours: list[apsw.Connection] = ours
        ) -> None:
            if ours:
                return
            ours.append(connection)

            def trace(_cursor: object, statement: str, _bindings: object) -> bool:
                nonlocal statements
                statements += 1
                if statements == stop and not connection.in_transaction:
                    asyncio.run(opened_and_closed(path))
                return True

            connection.exec_trace = trace  # pyright: ignore[reportAttributeAccessIssue]

        apsw.connection_hooks.append(look)
        try:
            await opened_and_closed(path)
        finally:
            apsw.connection_hooks.remove(look)


# Files that are not ours.


async def test_a_database_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with connected(path) as connection:
        connection.execute("CREATE TABLE customers (name TEXT); INSERT INTO customers VALUES ('Ada')")
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match=r"theirs\.db is a database of another program"):
        await opened_and_closed(path)
    assert path.read_bytes() == before


async def test_a_database_that_another_program_has_marked_is_refused(tmp_path: Path) -> None:
    """An empty one too."""
    path = tmp_path / "theirs.db"
    with connected(path) as connection:
        connection.pragma("application_id", 0x47504B47)
    with pytest.raises(StoreUnusable, match="another program"):
        await opened_and_closed(path)


async def test_what_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("These are my notes.\n" * 1000)
    with pytest.raises(StoreUnusable, match=r"notes\.txt is not a SQLite database"):
        await opened_and_closed(path)
    assert path.read_text() == "These are my notes.\n" * 1000


async def test_a_newer_schema_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """It says which the file has, which are known here, and what to do."""
    path = tmp_path / "jobs.db"
    await opened_and_closed(path)
    with connected(path) as connection:
        connection.pragma("user_version", 4711)
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match=r"schema 4711,.* this version of afterward knows \d+; upgrade afterward"):
        await opened_and_closed(path)
    assert path.read_bytes() == before


async def test_a_newer_schema_of_the_same_hundred_is_worked_with(tmp_path: Path) -> None:
    """A deployment can go back to the version before, and a process of that can be started in the middle of one."""
    path = tmp_path / "jobs.db"
    await opened_and_closed(path)
    newest = load_migrations(PACKAGE)[-1][0]
    with connected(path) as connection:
        connection.execute("ALTER TABLE jobs ADD COLUMN novel TEXT")
        connection.pragma("user_version", newest + 1)
    for migrate in (True, False):
        store = SQLiteStore(path)
        await store.open(migrate=migrate)
        await put(store, new_job())
        assert await store.schema() == Schema(newest + 1, newest)
        await store.close()


async def test_an_older_schema_is_refused_and_left_as_it_is_by_who_only_looks(tmp_path: Path) -> None:
    """A process of an older version can be started again after that."""
    path = tmp_path / "jobs.db"
    older, newest = [number for number, _ in load_migrations(PACKAGE)][-2:]
    await opened_and_closed(path)
    with connected(path) as connection:
        connection.pragma("user_version", older)
    before = path.read_bytes()
    store = SQLiteStore(path)
    with pytest.raises(
        StoreUnusable, match=rf"schema {older}, .* works with {newest}; bring it up to date \(afterward migrate"
    ):
        await store.open(migrate=False)
    await store.close()
    assert path.read_bytes() == before
    with connected(path) as connection:
        connection.pragma("user_version", newest)
    await store.open(migrate=False)
    await store.close()


async def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable):
        await opened_and_closed(tmp_path)


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match=r"missing/jobs\.db cannot be created: .*create its folder"):
        await opened_and_closed(tmp_path / "missing" / "jobs.db")


async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """At the opening, or when the damage is met; never a silent beginning from nothing."""
    path = tmp_path / "jobs.db"
    store = SQLiteStore(path)
    await store.open()
    await put(store, *(new_job(arguments=f'"{"x" * 2000}"') for _ in range(100)))
    await store.close()
    content = bytearray(path.read_bytes())
    content[100:4096] = os.urandom(3996)
    path.write_bytes(content)

    async def open_and_look() -> None:
        await store.open()
        await store.list(limit=1000)

    with pytest.raises(StoreError):
        await open_and_look()
    await store.close()


async def test_an_opening_that_failed_can_be_tried_again(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "later" / "jobs.db")
    for _ in range(2):
        with pytest.raises(StoreUnusable):
            await store.open()
    (tmp_path / "later").mkdir()
    await store.open()
    await put(store, new_job())
    await store.close()


# Files that may not be written.


def obey_modes() -> None:
    """The superuser is not stopped by a file's mode, unless it gives up CAP_DAC_OVERRIDE (capabilities(7))."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    for index in (0, 1, 2):
        sets[index] &= ~0b1110
    assert libc.capset(header, sets) == 0


async def attempt_under_modes(path: Path) -> str:
    """In a process that obeys modes, open a store and store a job: what came of it."""
    process = OtherProcess("sqlite", str(path), 0)
    try:
        process.run(obey_modes)
        try:
            process.call("open")
            process.call("join", Process("reader", 1, "example"))
            process.call("enqueue", [(new_job(), Placement.free)], None)
        except StoreError as error:
            return f"{type(error).__name__}: {error}"
        return "stored"
    finally:
        process.kill()


async def test_in_a_folder_that_can_be_written_jobs_are_stored(tmp_path: Path) -> None:
    """What the tests below would show, were the modes obeyed by nobody."""
    assert await attempt_under_modes(tmp_path / "jobs.db") == "stored"


async def test_in_a_folder_that_cannot_be_written_no_store_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    said = await attempt_under_modes(folder / "jobs.db")
    assert said.startswith("StoreUnusable: ")
    assert "cannot be created: Permission denied" in said
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o400, 0o700), (0o400, 0o500), (0o600, 0o500), (0o000, 0o700)])
async def test_a_store_that_cannot_be_written_is_unusable(tmp_path: Path, file_mode: int, folder_mode: int) -> None:
    """The file, its folder, or both: said when it is opened, with what to mend; and nothing in it changes."""
    path = tmp_path / "store" / "jobs.db"
    path.parent.mkdir()
    store = SQLiteStore(path)
    await store.open()
    [id_] = await put(store, new_job())
    await store.close()
    path.chmod(file_mode)
    path.parent.chmod(folder_mode)

    said = await attempt_under_modes(path)

    path.parent.chmod(0o700)
    path.chmod(0o600)
    assert said.startswith("StoreUnusable: ")
    assert "cannot be written" in said
    await store.open()
    assert [job.id for job in await store.list()] == [id_]
    await store.close()


# What is created.


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def _open_umask() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.usefixtures("_open_umask")
async def test_all_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """The database, its journal, the lock files and their folder, whatever the umask."""
    store = SQLiteStore(tmp_path / "jobs.db")
    await store.open()
    await store.join(Process("worker", 1, "example"))
    await put(store, new_job())
    modes = {path.relative_to(tmp_path).as_posix(): mode_of(path) for path in tmp_path.rglob("*")}
    await store.leave("worker")
    await store.close()
    assert modes == {
        "jobs.db": 0o600,
        "jobs.db-wal": 0o600,
        "jobs.db-shm": 0o600,
        "jobs.db.processes": 0o700,
        "jobs.db.processes/worker.lock": 0o600,
    }


@pytest.mark.usefixtures("_open_umask")
async def test_a_file_made_through_a_link_is_for_its_owner_alone(tmp_path: Path) -> None:
    """A deployment may link to a place that outlives it, before there is anything there."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "jobs.db").symlink_to(tmp_path / "shared" / "jobs.db")
    store = SQLiteStore(tmp_path / "jobs.db")
    await store.open()
    await put(store, new_job())
    modes = {path.name: mode_of(path) for path in (tmp_path / "shared").iterdir()}
    await store.close()
    assert modes["jobs.db"] == 0o600
    assert set(modes.values()) <= {0o600, 0o700}


async def test_one_file_by_two_paths_is_one_store(tmp_path: Path) -> None:
    """Two processes that call it by different names see each other's death at once."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "jobs.db").touch(0o600)
    (tmp_path / "current.db").symlink_to(tmp_path / "shared" / "jobs.db")
    process = OtherProcess("sqlite", str(tmp_path / "shared" / "jobs.db"), 0)
    store = SQLiteStore(tmp_path / "current.db")
    await store.open()
    try:
        process.call("open")
        process.call("join", Process("elsewhere", 1, "example"))
        assert await store.dead() == []
        process.kill()
        assert await store.dead() == ["elsewhere"]
    finally:
        process.kill()
        await store.close()


async def test_a_process_leaves_nothing_but_the_database(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "jobs.db")
    await store.open()
    await store.join(Process("worker", 1, "example"))
    await store.leave("worker")
    await store.close()
    assert {path.name for path in tmp_path.rglob("*")} == {"jobs.db", "jobs.db.processes"}


async def test_what_a_process_left_that_died_while_it_took_its_lock_is_removed(tmp_path: Path) -> None:
    """By the next one, and only what is so old that nobody can be at it any more."""
    folder = tmp_path / "jobs.db.processes"
    folder.mkdir()
    for name, seconds in [("old", 3700), ("young", 3500)]:
        (folder / f"{name}.new").touch()
        os.utime(folder / f"{name}.new", (time.time() - seconds, time.time() - seconds))
    store = SQLiteStore(tmp_path / "jobs.db")
    await store.open()
    await store.join(Process("worker", 1, "example"))
    assert {path.name for path in folder.iterdir()} == {"young.new", "worker.lock"}
    await store.leave("worker")
    await store.close()


async def test_the_location_is_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken when the store is named: a later change of folder does not move it."""
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore("jobs.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert store.location == str(tmp_path / "jobs.db")
    await store.open()
    await store.close()
    assert (tmp_path / "jobs.db").exists()


# Network file systems.

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /mnt/share rw,relatime shared:2 - {kind} server:/export rw
31 22 0:26 / /mnt/share/local rw,relatime - xfs /dev/sdb1 rw
32 22 0:27 / /mnt/with\\040space rw - {kind} server:/other rw
33 22 0:28 / /mnt/donn\u00e9es rw - {kind} server:/donnees rw
34 22 0:29 / /mnt/auto rw - autofs systemd-1 rw
35 34 0:30 / /mnt/auto rw - {kind} server:/auto rw
"""

on_a_network = pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs", "fuse.glusterfs"]
)


@on_a_network
@pytest.mark.parametrize(
    "path",
    [
        "/mnt/share/jobs.db",
        "/mnt/share/deep/er/jobs.db",
        "/mnt/share/locally/jobs.db",
        "/mnt/with space/jobs.db",
        "/mnt/donn\u00e9es/jobs.db",
        "/mnt/auto/jobs.db",
    ],
)
def test_a_network_file_system_is_refused(kind: str, path: str) -> None:
    """By its name in /proc/self/mountinfo, and with the mend."""
    with pytest.raises(StoreUnusable, match=rf"network file system \({kind}\).*local disk.*postgresql"):
        refuse_network_file_system(Path(path), MOUNTS.format(kind=kind))


@on_a_network
@pytest.mark.parametrize("path", ["/jobs.db", "/mnt/jobs.db", "/mnt/shared/jobs.db", "/mnt/share/local/jobs.db"])
def test_a_local_disk_beside_a_network_is_not_refused(kind: str, path: str) -> None:
    refuse_network_file_system(Path(path), MOUNTS.format(kind=kind))


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "apfs", "fuseblk", "fuse.ntfs-3g"])
def test_local_file_systems_are_not_refused(kind: str) -> None:
    refuse_network_file_system(Path("/mnt/share/jobs.db"), MOUNTS.format(kind=kind))


@pytest.mark.parametrize("mounts", ["", "\n", "nonsense", "1 2 3 - nfs", "a b c d e", " - ", "- nfs x rw"])
def test_a_table_of_mounts_that_cannot_be_read_refuses_nothing(mounts: str) -> None:
    refuse_network_file_system(Path("/mnt/share/jobs.db"), mounts)


def test_a_link_into_a_network_file_system_is_refused(tmp_path: Path) -> None:
    """What counts is where the file is, not what it is called."""
    (tmp_path / "share").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "share")
    mounts = (
        f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:25 / {tmp_path.resolve()}/share rw - nfs4 server:/export rw\n"
    )
    with pytest.raises(StoreUnusable, match="network file system"):
        refuse_network_file_system(tmp_path / "link" / "jobs.db", mounts)


def test_a_share_by_its_network_name_is_refused() -> None:
    with pytest.raises(StoreUnusable, match="network"):
        refuse_network_file_system(Path("//server/share/jobs.db"), "")


def test_the_folder_of_this_test_is_on_no_network(tmp_path: Path) -> None:
    """With the mounts of this machine as they are."""
    refuse_network_file_system(tmp_path / "jobs.db")
