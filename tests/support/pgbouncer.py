"""The PgBouncer that tests share."""

import os
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from servers.pgbouncer import PgBouncer, find
from servers.postgres import Server, Setting


@contextmanager
def pooler(server: Server, **settings: Setting) -> Generator[PgBouncer]:
    """A PgBouncer before this server. Where none is installed the test is skipped, but never where CI is true."""
    if find() is None and os.environ.get("CI") != "true":
        pytest.skip("PgBouncer is not installed: scripts/test does so for root, on Debian")
    with PgBouncer(server, **settings) as pgbouncer:
        yield pgbouncer
