"""A site of several processes on one store, with requests, trouble and deaths: and what must hold, whatever happens."""

from collections import Counter
from collections.abc import Sequence

from afterward.errors import StoreError
from afterward.job import Lease, NewJob, Outcome, Succeeded
from afterward.liveness import MAX_DEATHS, SUSPECT_AFTER
from tests.simulation.loops import World
from tests.simulation.process import LEASE_SECONDS, MAX_ATTEMPTS, Plan, SimulatedProcess, work
from tests.simulation.store import Machine, SimulatedStore

BACK_IN_SECONDS = 60.0
"""How long everything may take to end once nothing has gone wrong for so long: the last back-off is a part of it."""

BUSY = 20
"""So many transactions a second are too many for a process that has nothing to do."""


class Site:
    """All of it. What is never to be raises `AssertionError` as it happens, or is one of the world's `mistakes`.

    Every second seed is of a store in which a lock proves a death, as SQLite's; two of four, of one in which the
    operations of a process overtake each other, as those of PostgreSQL.
    """

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self.machine = Machine(self.world, proves_death=seed % 2 == 0, side_by_side=seed % 4 >= 2)
        self.machine.hear_of_ends = self._hear_of_ends
        self.machine.held_by = self._held_by
        self.processes: list[SimulatedProcess] = []
        self.plans: list[Plan] = []
        self.acknowledged: set[str] = set()
        self.under_way: dict[str, tuple[SimulatedProcess, str | None]] = {}
        """Jobs whose request is not over; by the process that serves it, under this identity."""
        self.asked_to_end: set[str] = set()
        self.starts: Counter[tuple[str, int]] = Counter()
        self.ran: Counter[str] = Counter()
        self.kills: Counter[int] = Counter()
        self._is_peace = False
        self._accepted: dict[tuple[str, int], Outcome] = {}
        self._successes: Counter[str] = Counter()

    # what happens

    def go_on(self, seconds: float, *, in_peace: bool = False) -> None:
        """Requests are made, one after the other; and unless it is peace, one of what may happen between them."""
        self._is_peace = in_peace
        end = self.world.now + seconds
        while self.world.now < end:
            if in_peace or self.world.chance(0.85):
                self.make_request()
            else:
                self.let_something_happen()
            self.world.run_for(self.world.random.expovariate(20))

    def recover(self) -> None:
        """Nothing goes wrong any more, but what the jobs themselves do; until all is done, or should be."""
        self.machine.trouble = 0.0
        kills = -1
        while not self._is_done() and kills < self.kills.total():  # else those that kill still have their way
            kills = self.kills.total()
            self.world.run_until(self._is_done, BACK_IN_SECONDS)

    def start_process(self) -> None:
        self.processes.append(SimulatedProcess(self, len(self.processes) + 1))

    def hear_of_death(self, process: SimulatedProcess) -> None:
        """What it served is over; and whoever looks after processes starts another, if there is none left."""
        self.under_way = {job: served for job, served in self.under_way.items() if served[0] is not process}
        self.world.call_later(0.5, lambda: self.serving or self.start_process())

    @property
    def serving(self) -> list[SimulatedProcess]:
        return [process for process in self.processes if process.serves]

    def new_jobs(self) -> list[NewJob]:
        dice = self.world.random
        jobs: list[NewJob] = []
        for _ in range(dice.choice([1, 1, 1, 2, 5])):
            plan = Plan(dice.choice([0.0, 0.0, 0.01, 0.1, 1.0, 3.0]))
            if dice.random() < 0.2:
                plan.failures = dice.randint(1, MAX_ATTEMPTS + 1)
            elif dice.random() < 0.05 and not self._is_peace:
                plan.kills = dice.randint(1, MAX_DEATHS + 2)
            self.plans.append(plan)
            delay = dice.choice([0.0, 0.5]) or None
            jobs.append(work.options(priority=dice.randint(0, 2), delay=delay).prepare(len(self.plans) - 1))
        return jobs

    def make_request(self) -> None:
        dice = self.world.random
        if not self.serving:
            return
        process = dice.choice(self.serving)
        serving = process.app.create_task(
            process.request(self.new_jobs(), direct=dice.random() < 0.7, seconds=dice.choice([0.0, 0.001, 0.05]))
        )
        if dice.random() < 0.1:
            self.world.seen["a request was cancelled"] += 1
            process.app.call_later(dice.uniform(0, 0.01), serving.cancel)

    def let_something_happen(self) -> None:
        """One of what may happen to a process or to a job, by the dice."""
        dice, serving = self.world.random, self.serving
        awake = [process for process in serving if not process.stands_still]
        if not awake:
            return
        process = dice.choice(awake)
        match dice.choice(["kill", "stop", "stop", "leave", "start", "trouble", "calm", "cancel"]):
            case "kill":
                self.world.seen["a process was killed"] += 1
                process.kill()
            case "stop":
                process.stop_for(dice.choice([0.01, 0.5, 1.5 * LEASE_SECONDS, 3 * LEASE_SECONDS]))
            case "leave":
                self.world.seen["a process left"] += 1
                process.leave()
                self.start_process()
            case "start" if len(serving) < 4:
                self.start_process()
            case "trouble":
                self.machine.trouble = dice.choice([0.02, 0.1, 0.5])
            case "calm":
                self.machine.trouble = 0.0
            case "cancel" if self.acknowledged:
                job = dice.choice(sorted(self.acknowledged))
                self.asked_to_end.add(job)
                process.app.create_task(_cancel(process.store, job))
            case _:
                pass

    # what must hold

    def hear_of_start(self, lease: Lease) -> None:
        """An attempt begins. Not to raise: it would be taken for a failure of the job."""
        key = job, attempt = lease.id, lease.attempt
        self.starts[key] += 1
        if self.starts[key] > 1:
            self.world.mistakes.append({"message": f"attempt {attempt} of {job} has begun twice"})
        if not self._held_by(lease) and self._is_known(lease.process):
            self.world.mistakes.append({"message": f"attempt {attempt} of {job} has begun, and is not held"})
        if job in self.under_way and self._is_known(self.under_way[job][1]):
            self.world.mistakes.append({"message": f"{job} has begun, and its request is not over"})

    def hear_of_kill(self, number: int) -> None:
        """A job kills the process that it runs in."""
        self.world.seen["a job killed its process"] += 1
        self.kills[number] += 1
        if self.kills[number] > SUSPECT_AFTER:
            self.world.mistakes.append({"message": f"the {number}th job has killed {self.kills[number]} processes"})

    def lives(self, process: SimulatedProcess) -> bool:
        """As the store has it."""
        return self._is_known(process.liveness.process)

    def _is_known(self, process: str | None) -> bool:
        return bool(self.machine.rows("SELECT 1 FROM processes WHERE id = ?", process))

    def _held_by(self, lease: Lease) -> bool:
        rows = self.machine.rows(
            "SELECT 1 FROM jobs WHERE id = ? AND attempt = ? AND process = ? AND status = 'running'",
            lease.id, lease.attempt, lease.process,
        )  # fmt: skip
        return bool(rows)

    def _hear_of_ends(self, ends: Sequence[tuple[Lease, Outcome]], answers: list[bool], held: list[bool]) -> None:
        for (lease, outcome), is_accepted, was_held in zip(ends, answers, held, strict=True):
            key = lease.id, lease.attempt
            if not is_accepted:
                self.world.seen["an end was refused"] += 1
            elif not was_held:
                assert type(self._accepted.get(key)) is type(outcome), f"{key} has ended, and was not held: {outcome}"
            else:
                self._accepted[key] = outcome
                if isinstance(outcome, Succeeded):
                    self._successes[lease.id] += 1
                    assert self._successes[lease.id] == 1, f"{lease.id} has succeeded twice"

    def _is_done(self) -> bool:
        return not self.under_way and not self.machine.rows(
            "SELECT 1 FROM jobs WHERE status IN ('queued', 'running') LIMIT 1"
        )

    def check(self) -> None:
        """All that must hold once nothing has gone wrong for long enough."""
        self.check_mistakes()
        self.check_all_is_done()
        self.check_books()
        self.check_rest()

    def check_mistakes(self) -> None:
        assert not self.world.mistakes, self.world.mistakes
        for process in self.processes:
            if process.serving.done() and not process.serving.cancelled():
                process.serving.result()

    def check_all_is_done(self) -> None:
        left = self.machine.rows(
            "SELECT id, status, attempt, process, due, run_at FROM jobs WHERE status IN ('queued', 'running')"
        )
        assert not self.under_way, f"not answered: {self.under_way}"
        assert not left, f"stuck at {self.world.now:.2f}, {len(left)} of them: {left[:3]}"
        stored = {id_ for (id_,) in self.machine.rows("SELECT id FROM jobs")}
        assert self.acknowledged <= stored, f"lost: {self.acknowledged - stored}"

    def check_books(self) -> None:
        """What the store remembers is what has happened."""
        begun: Counter[str] = Counter()
        for job, attempt in self.starts:
            begun[job] = max(begun[job], attempt)
        rows = self.machine.rows(
            "SELECT id, status, attempt, failures, deaths, (SELECT count(*) FROM attempts WHERE job = seq) FROM jobs"
        )
        for job, status, attempt, failures, deaths, remembered in rows:
            assert begun[job] <= attempt, f"{job}: attempt {begun[job]} has begun, and {attempt} is known"
            assert failures <= MAX_ATTEMPTS, job
            assert deaths <= MAX_DEATHS, job
            assert remembered + (status == "succeeded") <= attempt, f"{job}: {remembered} of {attempt} remembered"
            match status:
                case "succeeded":
                    assert self._successes[job] == 1, job
                    assert self.ran[job] >= 1, f"{job} has succeeded, and never ran to its end"
                case "failed":
                    assert failures == MAX_ATTEMPTS or deaths == MAX_DEATHS, f"{job} has failed too soon"
                    if deaths == MAX_DEATHS:
                        self.world.seen["a job was set aside"] += 1
                case "cancelled":
                    assert job in self.asked_to_end, f"{job} was cancelled by nobody"
                case _:
                    raise AssertionError(status)
        assert self.machine.rows("PRAGMA integrity_check") == [("ok",)]

    def check_rest(self) -> None:
        """Nothing to do, and little done; and who serves is not taken for dead."""
        before = {process: process.store.asked for process in self.serving}
        self.world.run_for(10.0)
        for process, asked_before in before.items():
            assert self.lives(process)
            asked = process.store.asked - asked_before
            assert asked < 10 * BUSY, f"{asked / 10} transactions a second"

    # the end

    def end(self) -> None:
        """Unwind what is left of all processes, the dead too."""
        self.machine.trouble = 0.0
        for plan in self.plans:
            plan.kills = 0
        for process in self.processes:
            process.is_dead = False
            process.store.unwind()
            process.worker.stop()
            process.liveness.stop_sync()
            for lane in (process.app, process.heart):
                for task in lane.tasks:
                    lane.call_soon(task.cancel)
        assert self.world.run_until(lambda: not any(lane.tasks for lane in self.world.lanes), 60.0)


async def _cancel(store: SimulatedStore, job: str) -> None:
    try:
        await store.cancel([job])
    except StoreError:
        return
