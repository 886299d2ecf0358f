"""What all tests share."""

import signal
from collections.abc import Iterator

import pytest

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
