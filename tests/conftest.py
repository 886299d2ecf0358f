"""What all tests share."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from servers.pgbouncer import PgBouncer
from servers.postgres import Server
from servers.rabbitmq import RabbitMQ
from servers.valkey import Valkey
from tests.support.brokers import shared_rabbitmq, shared_valkey
from tests.support.pgbouncer import pooler
from tests.support.postgres import READY, shared_server
from tests.support.processes import Starter

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a shell: what the tests start would inherit it, and not hear of Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    """`@pytest.mark.anyio` tests run on asyncio, as everything does."""
    return "asyncio"


@pytest.fixture(autouse=True)
def stores_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app in this process has started when its store is open, however slow the disk is just now."""
    monkeypatch.setattr("afterward.living._START_UP_SECONDS", 30.0)


@pytest.fixture(scope="session")
def starter() -> Iterator[Starter]:
    """What starts programs without waiting for their imports."""
    starter = Starter()
    yield starter
    starter.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """The PostgreSQL server that tests share, started by the first that asks. One that does not start is a failure."""
    with shared_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: Server) -> Iterator[str]:
    """The URL of a PostgreSQL database with the newest schema and no jobs, which the test has for itself."""
    with postgres_server.database(template=READY) as url:
        yield url


@pytest.fixture
def empty_postgres_url(postgres_server: Server) -> Iterator[str]:
    """The same, without any schema."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: Server) -> Iterator[PgBouncer]:
    """A PgBouncer in transaction mode before the server that tests share, which they share too."""
    with pooler(postgres_server) as pgbouncer:
        yield pgbouncer


@pytest.fixture
def pgbouncer_url(postgres_url: str, pgbouncer: PgBouncer) -> str:
    """The URL of the database of `postgres_url`, through PgBouncer."""
    return pgbouncer.url(postgres_url.rpartition("/")[2])


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """The RabbitMQ that tests share, started by the first that asks. One that does not start is a failure."""
    with shared_rabbitmq() as rabbitmq:
        yield rabbitmq


@pytest.fixture
def rabbitmq_url(rabbitmq: RabbitMQ) -> Iterator[str]:
    """The URL of an empty virtual host of RabbitMQ, which the test has for itself."""
    with rabbitmq.host() as url:
        yield url


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """The Valkey that tests share, started by the first that asks. One that does not start is a failure."""
    with shared_valkey() as valkey:
        yield valkey


@pytest.fixture
def valkey_url(valkey: Valkey) -> Iterator[str]:
    """The URL of an empty database of Valkey, which the test has for itself."""
    with valkey.database() as url:
        yield url
