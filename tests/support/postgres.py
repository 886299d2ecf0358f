"""The PostgreSQL server that tests share."""

import asyncio
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from afterward.stores.postgres import PostgresStore
from servers.postgres import Server

READY = "ready"
"""The template of a database with the newest schema and no jobs, which takes long to make, and little to copy."""


@contextmanager
def shared_server() -> Generator[Server]:
    """A server for as many tests as like, each with a database of its own.

    A test that stops, kills or reconfigures its server starts one for itself. Without fsync, which takes time and saves
    nothing here: what a killed server has written, the operating system still writes, and no test cuts the power.
    """
    with Server(fsync=False, max_connections=500) as server:
        server.execute(f"CREATE DATABASE {READY}")
        with ThreadPoolExecutor(1) as thread:  # whoever asks first may be on an event loop
            thread.submit(asyncio.run, _make_store(server.url(READY))).result()
        yield server


async def _make_store(url: str) -> None:
    store = PostgresStore(url)
    await store.open()
    await store.close()
