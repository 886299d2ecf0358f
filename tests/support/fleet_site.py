"""An application whose jobs a Celery fleet runs, beside its servers and workers."""

import json
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.support.alive import is_running
from tests.support.processes import Death, Process, Starter
from tests.support.site import Site
from tests.support.waiting import wait_until

READY_SECONDS = 60

_APP = "tests.faults.app_under_test:celery_app"
_QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")
"""So that it is ready sooner."""

_COMMAND = ("celery", "-A", _APP, "worker", "--loglevel", "INFO", *_QUIET)


class FleetSite(Site):
    """Its processes know the broker of this URL. `settings`: of the Celery app, for all of them."""

    def __init__(
        self, folder: Path, starter: Starter, ending: ExitStack, broker: str, settings: dict[str, Any] | None = None
    ) -> None:
        super().__init__(folder, starter, ending)
        self.broker = broker
        self.settings = settings or {}

    def hire(self, *, pool: str = "prefork", slots: int = 2, ready: bool = True) -> Process:
        """Start a Celery worker as anybody does, and wait until it takes messages."""
        name = f"worker-{len(self.processes)}@%h"
        worker = self._start("celery", None, "", {}, [*_COMMAND, "-n", name, "-P", pool, "-c", str(slots)])
        if ready:
            self.wait_for(worker)
        return worker

    def wait_for(self, worker: Process) -> None:
        """Until a Celery worker takes messages."""
        wait_until(lambda: " ready." in worker.output(), "a Celery worker is ready", READY_SECONDS)

    def kill(self, worker: Process) -> dict[int, Death]:
        """Kill a Celery worker, whose children end with it; how each died, by its id."""
        children = worker.children()
        death = worker.kill()
        wait_until(lambda: not any(map(is_running, children)), "its children have ended with it")
        return dict.fromkeys([worker.pid, *children], Death(worker.pid, death.after, time.monotonic()))

    @property
    def handed(self) -> dict[str, int]:
        """The attempts of the jobs that are handed over, by their ids."""
        return dict(
            self.database.query("SELECT jobs.id, handed.attempt FROM handed JOIN jobs ON jobs.seq = handed.job")
        )

    def _start(
        self,
        role: str,
        listening: socket.socket | None,
        crash: str,
        settings: dict[str, Any],
        command: Sequence[str] = (),
    ) -> Process:
        told = {"broker": self.broker, "celery": json.dumps(self.settings), **settings}
        return super()._start(role, listening, crash, told, command)
