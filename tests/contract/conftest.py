"""A place where jobs live, of every kind there is, checked for damage after each test."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from afterward.stores.base import Store
from tests.support.stores import KINDS, Living, Place


@pytest.fixture(params=sorted(KINDS))
async def place(request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Place]:
    """A place without jobs, and whole when the test is over."""
    with KINDS[request.param].create(tmp_path, lambda: request.getfixturevalue("postgres_server")) as where:
        async with AsyncExitStack() as cleanup:
            yield Place(request.param, where, cleanup)


@pytest.fixture(params=sorted(KINDS))
async def empty_place(request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Place]:
    """The same, where a store is yet to be made."""
    with KINDS[request.param].create_empty(tmp_path, lambda: request.getfixturevalue("postgres_server")) as where:
        async with AsyncExitStack() as cleanup:
            yield Place(request.param, where, cleanup)


@pytest.fixture
async def store(place: Place) -> Store:
    """An open store object that no process has joined."""
    return await place.open()


@pytest.fixture
async def worker(place: Place) -> Living:
    """A process that lives."""
    return await place.process("worker")


@pytest.fixture
async def other(place: Place) -> Living:
    """Another process that lives, on the same place."""
    return await place.process("other")
