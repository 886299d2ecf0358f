"""The RabbitMQ of the tests: how it starts, ends, and what of it stays."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection, Queue

from servers import ports
from servers import rabbitmq as module
from servers.errors import ServerError
from servers.rabbitmq import RabbitMQ
from tests.support.brokers import shared_rabbitmq
from tests.support.processes import run_aside
from tests.support.waiting import wait_until

_SERVE_AS_NOBODY = """
import os, sys
from servers.rabbitmq import RabbitMQ
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
server = RabbitMQ()
server.start()
print(server.pid, os.readlink(f"/proc/{server.pid}/cwd"), server._names.pid, flush=True)
sys.stdin.read()
"""

CLASSIC = Queue("classic")
QUORUM = Queue("quorum", queue_arguments={"x-queue-type": "quorum"})


@pytest.fixture
def own(rabbitmq: RabbitMQ) -> Iterator[RabbitMQ]:
    """One that the test has for itself."""
    with RabbitMQ() as own:
        yield own


def publish(url: str, queue: Queue, body: str) -> None:
    """Until the broker has confirmed."""
    with Connection(url, transport_options={"confirm_publish": True, "read_timeout": 20}) as connection:
        connection.Producer().publish(body, routing_key=queue.name, exchange="", declare=[queue])


def taken(url: str, queue: Queue) -> str | None:
    """A message, which is then gone."""
    with Connection(url, transport_options={"read_timeout": 20}) as connection, connection.channel() as channel:
        message = queue(channel).get(no_ack=True)
        return message and message.payload


def queues_of(rabbitmq: RabbitMQ, url: str) -> int:
    return int(rabbitmq.evaluate(f'length(rabbit_amqqueue:list(<<"{url.rpartition("/")[2]}">>))'))


def test_a_host_is_empty_and_apart(rabbitmq: RabbitMQ, rabbitmq_url: str) -> None:
    publish(rabbitmq_url, QUORUM, "here")
    with rabbitmq.host() as other:
        assert queues_of(rabbitmq, other) == 0
    assert queues_of(rabbitmq, rabbitmq_url) == 1
    assert taken(rabbitmq_url, QUORUM) == "here"


def test_a_host_is_removed_in_the_end_whoever_is_connected(rabbitmq: RabbitMQ) -> None:
    with Connection() as connection:
        with rabbitmq.host() as url:
            connection.switch(url)
            connection.connect()
        with pytest.raises(connection.connection_errors):
            connection.drain_events(timeout=20)
    assert url.rpartition("/")[2] not in rabbitmq.evaluate("rabbit_vhost:list_names()")


def test_it_never_runs_as_root(rabbitmq: RabbitMQ) -> None:
    assert Path(f"/proc/{rabbitmq.pid}").stat().st_uid != 0


def test_ctrl_c_does_not_reach_it(rabbitmq: RabbitMQ) -> None:
    assert rabbitmq.pid is not None
    assert os.getsid(rabbitmq.pid) != os.getsid(0)


def test_what_it_has_confirmed_outlives_its_kill_and_its_stop(own: RabbitMQ) -> None:
    with own.host() as url:
        for end in (own.kill, own.stop):
            for queue in (CLASSIC, QUORUM):
                publish(url, queue, end.__name__)
            end()
            end()
            assert own.pid is None
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", own.port))
            own.start()
            own.start()
            assert [taken(url, queue) for queue in (CLASSIC, QUORUM)] == [end.__name__] * 2


def test_started_by_somebody_who_is_not_root_it_leaves_nothing_behind_when_he_is_killed(rabbitmq: RabbitMQ) -> None:
    run = run_aside(_SERVE_AS_NOBODY)
    assert run.stdout is not None
    pid, folder, names = run.stdout.readline().split()
    assert Path(f"/proc/{pid}").stat().st_uid != 0
    run.send_signal(signal.SIGKILL)
    run.communicate()
    wait_until(lambda: not Path(folder).exists(), "its data is gone", 20)
    wait_until(lambda: not any(Path(f"/proc/{each}/exe").exists() for each in (pid, names)), "it is gone", 20)


def test_a_wrong_setting_is_a_failure_that_says_so(rabbitmq: RabbitMQ) -> None:
    with pytest.raises(ServerError, match="no_such_thing"):
        RabbitMQ({"no_such_thing": 1}).start()


def test_a_port_that_was_taken_meanwhile_is_not_insisted_on(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        used = other.getsockname()[1]
        given = iter([ports.free_port(), used])
        monkeypatch.setattr(module, "free_port", lambda: next(given, None) or ports.free_port())
        with RabbitMQ() as another:
            assert another.port != used


@pytest.mark.parametrize(("ci", "error"), [("true", ServerError), ("", pytest.skip.Exception)])
def test_where_it_is_not_installed_that_is_a_failure_in_ci(
    ci: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str, path: str) -> None:
        return

    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr("shutil.which", missing)
    with pytest.raises(error, match="RabbitMQ"), shared_rabbitmq():
        pass
