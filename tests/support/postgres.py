"""The PostgreSQL server that tests share."""

from collections.abc import Generator
from contextlib import contextmanager

from servers.postgres import Server


@contextmanager
def shared_server() -> Generator[Server]:
    """A server for as many tests as like, each with a database of its own.

    A test that stops, kills or reconfigures its server starts one for itself. Without fsync, which takes time and saves
    nothing here: what a killed server has written, the operating system still writes, and no test cuts the power.
    """
    with Server(fsync=False, max_connections=500) as server:
        yield server
