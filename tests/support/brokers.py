"""The brokers that tests share."""

import os
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from servers.rabbitmq import RabbitMQ, find
from servers.valkey import Valkey


@contextmanager
def shared_rabbitmq() -> Generator[RabbitMQ]:
    """A broker for as many tests as like, each with a virtual host of its own.

    A test that stops or kills its broker starts one for itself. Where none is installed the test is skipped, but never
    where CI is true.
    """
    if find() is None and os.environ.get("CI") != "true":
        pytest.skip("RabbitMQ is not installed: scripts/test does so for root, on Debian")
    with RabbitMQ() as rabbitmq:
        yield rabbitmq


@contextmanager
def shared_valkey() -> Generator[Valkey]:
    """A server for as many tests as like, each with databases of its own. Who stops or kills one starts his own."""
    with Valkey() as valkey:
        yield valkey
