"""A process within the process of a test: a life of its own, in a real store, that can be made to end by a crash."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from afterward.errors import StoreUnavailable
from afterward.faults import Crash
from afterward.intake import Intake, Keeper
from afterward.job import NewJob
from afterward.life import Conductor, Life
from afterward.liveness import Liveness
from afterward.stores.base import Answer
from afterward.stores.joining import Joins, Pretended
from afterward.stores.sqlite import SQLiteStore

Point = Literal["added", "inserted", "stored", "answered", "claimed", "started", "ended", "finished"]
"""Where a process can be made to crash, in the order of a job's life."""

POINTS: dict[Point, str] = {
    "added": "before_store",
    "inserted": "after_insert",
    "stored": "after_store",
    "answered": "after_response",
    "claimed": "after_claim",
    "started": "running",
    "ended": "before_finish",
    "finished": "after_finish",
}
"""What has just happened at each point, and the crash point in the code that comes after it."""

_JOINS = Pretended()

_LEASE_SECONDS = 3600.0
"""No test is slower, not one that stands in a debugger: what it holds is lost only when it says so."""

_VITAL = frozenset({"join", "beat", "give_back", "reap", "leave", "describe"})
"""What the heartbeat asks for. Its thread ends in good order when its process has crashed: it is told, not unwound."""


class MortalStore(SQLiteStore):
    """The store, as one process sees it: once that has died, nothing it asks for is done."""

    is_dead = False

    @property
    def joins(self) -> Joins:
        return _JOINS

    def die(self) -> None:
        """From now on, whoever asks for something is unwound by `Crash`. May be called from any thread."""
        self.is_dead = True

    async def dead(self) -> list[str]:
        return [] if self.is_dead else await super().dead()

    async def asked_to_end(self, process: str) -> Mapping[str, int]:
        return {} if self.is_dead else await super().asked_to_end(process)

    def _ask(self, kind: str, items: Any, *, is_heavy: bool = False) -> Answer[Any]:
        if self.is_dead:
            if kind in _VITAL:
                raise StoreUnavailable("this process has crashed")
            raise Crash
        return super()._ask(kind, items, is_heavy=is_heavy)

    def _look(self, look: Callable[[Any], Any]) -> Answer[Any]:
        if self.is_dead:
            raise Crash
        return super()._look(look)

    def _stage(self, connection: Any, operations: Any) -> None:
        if self.is_dead:
            raise Crash  # asked for before, and not committed in time
        super()._stage(connection, operations)


class Listener(Protocol):
    """Who is to know what is stored."""

    def hear_of_jobs(self, jobs: Sequence[NewJob]) -> None:
        """These are about to be stored."""
        ...

    async def hear_of_start(self) -> None:
        """Some that a request or a websocket had stored may start now."""
        ...

    async def hear_of_put(self) -> None:
        """Some were stored that may start at once."""
        ...

    def hear_of_put_sync(self) -> None:
        """The same, from code without an event loop."""
        ...


class HeardIntake(Intake):
    """An intake that tells of what goes through it."""

    def __init__(self, store: MortalStore, liveness: Liveness, listener: Listener) -> None:
        super().__init__(store, liveness)
        self._listener = listener
        self.host.stores_after = self._store_joined

    async def keep(self, jobs: Sequence[NewJob], keeper: Keeper, *, direct: bool) -> None:
        self._listener.hear_of_jobs(jobs)
        await super().keep(jobs, keeper, direct=direct)

    async def let_go(self, keeper: Keeper) -> None:
        await super().let_go(keeper)
        await self._listener.hear_of_start()

    async def put(self, jobs: Sequence[NewJob]) -> None:
        self._listener.hear_of_jobs(jobs)
        await super().put(jobs)
        await self._listener.hear_of_put()

    def put_sync(self, jobs: Sequence[NewJob]) -> None:
        self._listener.hear_of_jobs(jobs)
        self.liveness.run(super().put(jobs))
        self._listener.hear_of_put_sync()

    def _store_joined(self, jobs: Sequence[NewJob]) -> None:
        """A transaction of the application's own has been committed, in whatever database that is. It blocks."""
        self._listener.hear_of_jobs(jobs)
        self.liveness.run(super().put(jobs))


class MortalLife(Life):
    """A life that a test can end. It begins when something is stored."""

    def __init__(self, store: MortalStore, listener: Listener, conductor: Conductor) -> None:
        liveness = Liveness(store, _LEASE_SECONDS)
        super().__init__(store, liveness, HeardIntake(store, liveness, listener), conductor)
        self._mortal = store

    @property
    def is_over(self) -> bool:
        """Has it crashed?"""
        return self._mortal.is_dead

    def crash(self) -> None:
        """End here, as by `kill -9`: whatever is asked for from now on is not done."""
        self._mortal.die()

    def bury(self) -> None:
        """Let go of what the operating system takes from a dead process: its locks, its files, its threads."""
        self._mortal.die()
        self.liveness.kill()
