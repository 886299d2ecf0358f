"""What all tests share."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """`@pytest.mark.anyio` tests run on asyncio, as everything does."""
    return "asyncio"
