"""What all tests share."""

import signal
from collections.abc import Iterator

import pytest

from servers.postgres import Server
from tests.support.postgres import shared_server
from tests.support.processes import Starter

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a shell: what the tests start would inherit it, and not hear of Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    """`@pytest.mark.anyio` tests run on asyncio, as everything does."""
    return "asyncio"


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
    """The URL of an empty PostgreSQL database, which the test has for itself."""
    with postgres_server.database() as url:
        yield url
