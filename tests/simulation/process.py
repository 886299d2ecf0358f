"""One process of a simulation: the worker, the heart and the way in are the real ones, on loops of the simulation."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

from afterward import Afterward, current_job
from afterward.engine.voice import AttemptVoice
from afterward.engine.worker import Worker, WorkerOptions
from afterward.errors import ArgumentError, StoreError
from afterward.intake import Intake
from afterward.job import Died, Failure, Lease, NewJob, Outcome
from afterward.liveness import MAX_DEATHS, SUSPECT_DELAY_SECONDS, Liveness
from afterward.stay import Stay
from afterward.task import Task
from tests.simulation.loops import Lane, World
from tests.simulation.store import Machine, SimulatedStore

LEASE_SECONDS = 2.0
MAX_ATTEMPTS = 4

tasks = Afterward("sqlite:///simulated.db")


@tasks.task(max_attempts=MAX_ATTEMPTS, backoff=0.2, max_backoff=1.0)
async def work(number: int) -> int:
    lane = cast("Lane", asyncio.get_running_loop())
    await cast("SimulatedProcess", lane.owner).play(number)
    return number


@dataclass(slots=True)
class Plan:
    """What one job does: it takes so long, and before it succeeds it fails, or kills its process, so many times."""

    seconds: float
    failures: int = 0
    kills: int = 0


class Surroundings(Protocol):
    """What a process has to do with."""

    world: World
    machine: Machine
    plans: list[Plan]
    acknowledged: set[str]
    under_way: "dict[str, tuple[SimulatedProcess, str | None]]"
    ran: Counter[str]

    def hear_of_start(self, lease: Lease) -> None: ...

    def hear_of_kill(self, number: int) -> None: ...

    def hear_of_death(self, process: "SimulatedProcess") -> None: ...


class Keeper:
    """What a request is for the intake."""

    def __init__(self) -> None:
        self.leases: Sequence[Lease] = ()
        self.held: Sequence[str] = ()

    def take_back(self, jobs: Sequence[NewJob], error: StoreError | ArgumentError) -> None:
        """They are dropped: the client has an error."""


class PlayedStay(Stay):
    """On a loop of the simulation, in place of a thread."""

    def __init__(
        self, lane: Lane, live: Callable[[Stay], Coroutine[Any, Any, None]], before: Stay | None = None
    ) -> None:
        super().__init__(live, before)
        self._lane = lane

    def start(self) -> None:
        self._lane.create_task(self.begin())

    def wait_until_over(self, seconds: float | None = None) -> None:
        """Nobody here waits by blocking."""


class PlayedWorker(Worker):
    """The worker; but its child processes are played: one in which a suspect runs dies alone."""

    site: Surroundings

    async def _outcome(self, task: Task[..., Any], lease: Lease, voice: AttemptVoice) -> Outcome | None:
        self.site.hear_of_start(lease)
        return await super()._outcome(task, lease, voice)

    async def _run_apart(self, task: Task[..., Any], lease: Lease, voice: AttemptVoice) -> Outcome:
        number: int = json.loads(lease.arguments)["number"]
        plan = self.site.plans[number]
        if plan.kills:
            plan.kills -= 1
            deaths = lease.deaths + 1
            self.site.world.seen["a suspect killed its child process"] += 1
            final = deaths >= MAX_DEATHS
            return Died(Failure("WorkerDied", "played"), SUSPECT_DELAY_SECONDS * 2 ** (deaths - 1), final=final)
        return await self._executor.run(task, lease, voice)


class SimulatedProcess:
    """One process: a loop for its requests and jobs, another for its heart."""

    def __init__(self, site: Surroundings, number: int) -> None:
        self.site = site
        self.is_dead = False
        self._is_leaving = False
        self._stopped_until = 0.0
        self.app, self.heart = Lane(site.world, self), Lane(site.world, self)
        self.store = SimulatedStore(site.machine, self, number)
        self.liveness = Liveness(self.store, LEASE_SECONDS)
        self.liveness.make_stay = partial(PlayedStay, self.heart)
        self.intake = Intake(self.store, self.liveness)
        options = WorkerOptions(concurrency=4, grace=0.5)
        self.worker = PlayedWorker(
            self.store, self.liveness, tasks.tasks, options, tasks.restore_context, log_level=None
        )
        self.worker.site = site
        self.intake.direct = self.worker
        self.serving = self.app.create_task(self._serve())

    @property
    def stands_still(self) -> bool:
        return self.is_dead or self.site.world.now < self._stopped_until

    @property
    def serves(self) -> bool:
        return not self.is_dead and not self._is_leaving

    async def _serve(self) -> None:
        await self.worker.run()
        self.liveness.stop_sync()

    def kill(self) -> None:
        self.is_dead = True
        self.store.die()
        self.site.hear_of_death(self)

    def stop_for(self, seconds: float) -> None:
        """As by SIGSTOP, and SIGCONT so much later."""
        self._stopped_until = self.site.world.now + seconds
        self.site.world.call_later(seconds, lambda: None)  # so that there is a next moment

    def leave(self) -> None:
        """As by SIGTERM: what runs is released, and what waits is left to others."""
        self._is_leaving = True
        self.app.call_soon(self.worker.stop)

    async def request(self, jobs: Sequence[NewJob], *, direct: bool, seconds: float) -> None:
        keeper, site = Keeper(), self.site
        site.under_way.update({job.id: (self, self.liveness.process) for job in jobs})
        try:
            await self.intake.keep(jobs, keeper, direct=direct)
            site.under_way.update({job.id: (self, self.liveness.process) for job in jobs})
            site.acknowledged.update(job.id for job in jobs)
            await asyncio.sleep(seconds)
        except StoreError:
            site.world.seen["a request was refused"] += 1
        finally:
            for job in jobs:
                site.under_way.pop(job.id, None)
            await self.intake.let_go(keeper)

    async def play(self, number: int) -> None:
        """The function of a job."""
        site, job = self.site, current_job()
        plan = site.plans[number]
        await asyncio.sleep(plan.seconds)
        if plan.kills:
            plan.kills -= 1
            site.hear_of_kill(number)
            self.kill()
            await self.app.create_future()
        if plan.failures:
            plan.failures -= 1
            raise RuntimeError("it did not work")
        site.ran[job.id] += 1
