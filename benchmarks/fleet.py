"""Celery fleets that are measured: their brokers, their workers, and what has become of what they were given."""

import os
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import psutil
import redis
from kombu import Connection

from benchmarks.server import started, wait_until
from servers.rabbitmq import RabbitMQ
from servers.valkey import Valkey

SETTLING_SECONDS = 120.0

_from_url: Any = vars(redis)["from_url"]

_APP = "benchmarks.fleet_app:celery_app"


@dataclass(frozen=True)
class Fleet:
    """An empty broker, with a place for results, and a store for those who use it."""

    broker: str
    results: str
    store: Path

    def environment(self, tasks: str) -> dict[str, str]:
        """Of a process that runs `benchmarks.fleet_app`; `tasks`: what chooses how."""
        return {
            **os.environ,
            "BENCH_TASKS": tasks,
            "BENCH_BROKER": self.broker,
            "BENCH_RESULTS": self.results,
            "AFTERWARD_URL": f"sqlite:///{self.store}",
        }

    def waiting(self) -> int:
        """How many messages wait in the queue; none in one that is not there yet."""
        with Connection(self.broker) as connection:
            channel: Any = connection.channel()
            with suppress(*connection.channel_errors):
                return int(channel.queue_declare("celery", passive=True).message_count)
        return 0

    def kept_results(self) -> int:
        """How many results Celery has stored."""
        client: Any = _from_url(self.results)
        with client:
            return int(client.dbsize())

    def counted(self, condition: str) -> int:
        """How many jobs there are of which this is true."""
        connection = apsw.Connection(str(self.store), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(5000)
            return int(connection.execute(f"SELECT count(*) FROM jobs WHERE {condition}").get)
        finally:
            connection.close()

    def handed_over(self) -> int:
        """How many jobs are handed over."""
        return self.counted("seq IN (SELECT job FROM handed)")

    def succeeded(self) -> int:
        return self.counted("status = 'succeeded'")

    def worker(self, tasks: str, pool: str, slots: int, log: Path) -> AbstractContextManager[Any]:
        """A Celery worker as anybody starts it, ended with the block."""
        command = [sys.executable, "-m", "celery", "-A", _APP, "worker", "-P", pool, "-c", str(slots)]
        return started([*command, "--loglevel", "WARNING"], self.environment(tasks), log)


class Brokers:
    """RabbitMQ and Valkey, and the folder of the stores."""

    def __init__(self, folder: Path, ending: ExitStack) -> None:
        self._folder = folder
        self._valkey = ending.enter_context(Valkey())
        self._rabbitmq = ending.enter_context(RabbitMQ())
        self._fleets = 0

    @contextmanager
    def fleet(self, kind: str) -> Generator[Fleet]:
        """A new one, gone with the block; `kind`: "RabbitMQ" or "Redis"."""
        self._fleets += 1
        broker = self._rabbitmq.host() if kind == "RabbitMQ" else self._valkey.database()
        with broker as url, self._valkey.database() as results:
            yield Fleet(url, results, self._folder / f"fleet-{self._fleets}.db")


@contextmanager
def brokers(folder: Path) -> Generator[Brokers]:
    """Ended with the block."""
    with ExitStack() as ending:
        yield Brokers(folder, ending)


def processor_seconds(worker: int) -> float:
    """What a worker has used until now, all its processes together."""
    main = psutil.Process(worker)
    times = [process.cpu_times() for process in [main, *main.children(recursive=True)]]
    return sum(each.user + each.system for each in times)


def wait_for(count: Callable[[], int], number: int, what: str) -> None:
    """Until there are so many. Raises `TimeoutError`."""
    wait_until(lambda: count() >= number, SETTLING_SECONDS, what)
