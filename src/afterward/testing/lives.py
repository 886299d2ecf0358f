"""The lives that an `Afterward` lives for one test: one after the other, in stores of the test's own."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path
from typing import Protocol

from afterward.app import Afterward
from afterward.errors import ConfigurationError
from afterward.job import NewJob
from afterward.life import Conductor
from afterward.testing.clock import Clock
from afterward.testing.mortal import Listener, MortalLife, MortalStore


class Audience(Listener, Conductor, Protocol):
    """Who hears of what is stored, and has it run."""


class Lives:
    """The life of now, and how the next one begins. `new`: what was enqueued in the store of now, by its id."""

    def __init__(self, tasks: Afterward, clock: Clock) -> None:
        self.new: dict[str, NewJob] = {}
        self._tasks = tasks
        self._clock = clock
        self._starting = threading.Lock()
        self._stores = 0

    def begin(self, audience: Audience) -> None:
        """Begin the first, in an empty store; what the tasks lived until now waits for the end."""
        self._audience = audience
        self._folder = Path(tempfile.mkdtemp(prefix="afterward-", dir=_fast_folder()))
        self._before = self._tasks.life
        self._begin_in_a_new_store()

    def end(self) -> None:
        """Nothing is left of them, and the tasks live on where they lived before."""
        self._tasks.life = self._before
        self._now.bury()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def is_going_on(self) -> bool:
        """Is the life of now the one that the tasks live, and has it not crashed?"""
        return self._tasks.life is self._now and not self._now.is_over

    def living(self) -> MortalLife:
        """The life that the tasks live now; a new one, if that has crashed."""
        self._check()
        self.start_again_if_dead()
        return self._now

    def crash(self) -> None:
        """The process dies: nothing that it does from now on reaches the store."""
        self._now.crash()

    def restart(self) -> None:
        """The process is killed, if it still lives, and starts again: what it held is queued again."""
        self._check()
        self._now.bury()
        self._begin()
        if self.new:
            self._now.liveness.run(self._now.liveness.bury_the_dead())

    def start_again_if_dead(self) -> None:
        """`restart`, where a crash has made it due."""
        with self._starting:
            if self._now.is_over and self._tasks.life is self._now:
                self.restart()

    def clear(self) -> None:
        """Begin anew with an empty store."""
        self.living().bury()
        self.new.clear()
        self._begin_in_a_new_store()

    def _begin_in_a_new_store(self) -> None:
        self._path = self._folder / f"jobs-{self._stores}.db"
        self._stores += 1
        self._begin()

    def _begin(self) -> None:
        self._now = MortalLife(MortalStore(self._path, clock=self._clock), self._audience, self._audience)
        self._tasks.life = self._now

    def _check(self) -> None:
        if self._tasks.life is not self._now:
            raise ConfigurationError("this Bench is over, or another one for the same tasks has begun within it")


def _fast_folder() -> Path | None:
    """A file system in memory, where there is one: nothing of a test need survive a power cut."""
    memory = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a folder there that is ours alone
    return memory if memory.is_dir() else None
