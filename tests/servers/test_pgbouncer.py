"""The PgBouncer of the tests: it gives a server's connection to a client for one transaction, and no longer."""

import socket
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from servers import pgbouncer as module
from servers import ports
from servers.errors import ServerError
from servers.pgbouncer import PgBouncer
from servers.postgres import Server
from tests.support.pgbouncer import pooler


@pytest.fixture
def narrow(postgres_server: Server, pgbouncer: PgBouncer) -> Iterator[PgBouncer]:
    """One that has a single connection to the server."""
    with PgBouncer(postgres_server, default_pool_size=1) as narrow:
        yield narrow


def backend(connection: psycopg.Connection) -> int:
    """The server's process that answered."""
    [(pid,)] = connection.execute("SELECT pg_backend_pid()").fetchall()
    return pid


def test_it_leads_to_the_server(postgres_server: Server, postgres_url: str, pgbouncer_url: str) -> None:
    with psycopg.connect(pgbouncer_url) as through:
        through.execute("CREATE TABLE jobs (id text)")
    with psycopg.connect(postgres_url) as direct:
        assert direct.execute("SELECT * FROM jobs").fetchall() == []
    assert f":{postgres_server.port}/" not in pgbouncer_url


def test_clients_share_a_connection_between_transactions(narrow: PgBouncer) -> None:
    with (
        psycopg.connect(narrow.url(), autocommit=True) as one,
        psycopg.connect(narrow.url(), autocommit=True) as other,
    ):
        assert backend(one) == backend(other)


def test_what_one_sets_for_its_session_another_finds(narrow: PgBouncer) -> None:
    with (
        psycopg.connect(narrow.url(), autocommit=True) as one,
        psycopg.connect(narrow.url(), autocommit=True) as other,
    ):
        one.execute("SET work_mem = '77kB'")
        assert other.execute("SHOW work_mem").fetchall() == [("77kB",)]


def test_a_connection_is_ones_own_for_a_transaction(postgres_server: Server, pgbouncer: PgBouncer) -> None:
    with (
        PgBouncer(postgres_server, default_pool_size=1, query_wait_timeout=1) as narrow,
        psycopg.connect(narrow.url()) as one,
        psycopg.connect(narrow.url()) as other,
    ):
        one.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="query_wait_timeout"):
            other.execute("SELECT 1")


def test_it_does_not_run_as_root(pgbouncer: PgBouncer) -> None:
    assert Path(f"/proc/{pgbouncer.pid}").stat().st_uid != 0


def test_it_can_be_killed_and_started_again(narrow: PgBouncer) -> None:
    url = narrow.url()
    connection = psycopg.connect(url, autocommit=True)
    connection.execute("SELECT 1")
    narrow.kill()
    narrow.kill()
    assert narrow.pid is None
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()
    narrow.start()
    narrow.start()
    with psycopg.connect(url) as again:
        assert again.execute("SELECT 1").fetchall() == [(1,)]


def test_a_wrong_setting_is_a_failure_that_says_so(postgres_server: Server, pgbouncer: PgBouncer) -> None:
    with pytest.raises(ServerError, match="unknown parameter: pgbouncer/no_such_thing"):
        PgBouncer(postgres_server, no_such_thing=1).start()


def test_a_port_that_was_taken_meanwhile_is_not_insisted_on(
    postgres_server: Server, pgbouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        given = iter([taken, ports.free_port()])
        monkeypatch.setattr(module, "free_port", lambda: next(given))
        with PgBouncer(postgres_server) as another:
            assert another.port != taken


@pytest.mark.parametrize(("ci", "error"), [("true", ServerError), ("", pytest.skip.Exception)])
def test_where_it_is_not_installed_that_is_a_failure_in_ci(
    ci: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str, path: str) -> None:
        return

    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr("shutil.which", missing)
    with pytest.raises(error, match="PgBouncer"), pooler(Server()):
        pass
