"""A process's sign of life: its row, lock and heartbeat; and the reaping of the dead.

It runs on an event loop of its own (`Stay`). Who is dead, where no lock proves it, is decided by `Lookout`; what this
process has lost, and what it does not know to hold, by `differences`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import math
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from afterward.errors import StoreError, StoreUnavailable
from afterward.faults import Crash
from afterward.forks import call_in_child
from afterward.holdings import Holdings
from afterward.identity import new_id
from afterward.job import Process
from afterward.lookout import Lookout, Pace
from afterward.observe import emit
from afterward.reconciliation import Differences, differences
from afterward.stay import Stay
from afterward.stores.base import Beat, Store
from afterward.stores.seen import Served

T = TypeVar("T")

LOCK_LOOK_SECONDS = 0.25
"""How often the locks of other processes are tried: the most of what it takes to see a death."""

SUSPECT_AFTER = 2
"""Deaths after which a job is a suspect: from then on it runs in a child process of its own."""

MAX_DEATHS = 3
"""Deaths after which a job is set aside as failed."""

SUSPECT_DELAY_SECONDS = 1.0
"""The back-off before a suspect is tried again."""

_NEW_IDENTITY_SECONDS = 5.0


class Liveness:
    """The life of this process in one store. `lease`: seconds after which one that stands still loses its jobs.

    `migrate`: it brings the store up to date, in place of refusing an older one.
    """

    make_stay: Callable[[Callable[[Stay], Coroutine[Any, Any, None]], Stay | None], Stay] = Stay
    """What makes a stay. A test lets one pass on a loop of its own."""

    def __init__(self, store: Store, lease: float, *, migrate: bool = True) -> None:
        self._store = store
        self._lease = lease
        self._migrate = migrate
        self._lookout = Lookout(Pace.of(lease, proves_death=store.proves_death))
        self._next_beat = -math.inf
        self._shown_alive_at = -math.inf
        self._starting = threading.Lock()
        self._stay: Stay | None = None
        self._last_stay: Stay | None = None
        self._is_killed = False
        self._on_lost: list[Callable[[dict[str, int]], None]] = []
        self._on_asked: list[Callable[[Mapping[str, int]], None]] = []
        self._served: list[Callable[[], Served]] = []
        self._described: tuple[str | None, tuple[Served, ...]] = None, ()
        self.holdings = Holdings()
        self.process: str | None = None
        call_in_child(self._forget_inherited)

    @contextmanager
    def telling_lost(self, callback: Callable[[dict[str, int]], None]) -> Generator[None]:
        """While the block lasts, `callback` is called, in the liveness thread, with attempts that are lost, by job."""
        self._on_lost.append(callback)
        try:
            yield
        finally:
            self._on_lost.remove(callback)

    @contextmanager
    def telling_asked(self, callback: Callable[[Mapping[str, int]], None]) -> Generator[None]:
        """While the block lasts, `callback` is called, in the liveness thread, with attempts that are asked to end.

        By job; and again and again, as long as they run.
        """
        self._on_asked.append(callback)
        try:
            yield
        finally:
            self._on_asked.remove(callback)

    @contextmanager
    def serving(self, served: Callable[[], Served]) -> Generator[None]:
        """While the block lasts, who looks at this process sees that it runs jobs of these.

        Asked for in the liveness thread, again and again: a task can be declared at any time.
        """
        self._served.append(served)
        try:
            yield
        finally:
            self._served.remove(served)

    @property
    def is_recent(self) -> bool:
        """Has this process beaten within its lease? If not, it may have been taken for dead, and not know it yet."""
        return time.monotonic() - self._shown_alive_at < self._lease

    async def start(self) -> str:
        """Live, if not yet: answers this process's id once its row is written. Safe from any loop, any number of times.

        Raises what opening the store raised; a later call tries again.
        """
        if self._stay is not None and (process := self.process) is not None:
            return process
        first = await asyncio.wrap_future(self._ensure_started().joined)
        return self.process or first

    async def another_identity(self, old: str) -> str:
        """This process was taken for dead: have the heart beat soon, and notice. Raises `StoreUnavailable`."""
        deadline = time.monotonic() + _NEW_IDENTITY_SECONDS
        while time.monotonic() < deadline:
            process = self.process
            if process is not None and process != old:
                return process
            self._next_beat = -math.inf  # however long its turn takes to come
            await asyncio.sleep(0.02)
        raise StoreUnavailable("this process was taken for dead by another, and is still finding out")

    async def stop(self) -> None:
        """Leave the store and close it. Lawful without a start, and twice."""
        await asyncio.to_thread(self.stop_sync)

    def stop_sync(self) -> None:
        """`stop`, for code without an event loop. It blocks until the store is closed."""
        with self._starting:
            stay, last = self._stay, self._last_stay
            self._stay = None
        if stay is not None:
            atexit.unregister(self._leave_at_exit)
            stay.end()
        if last is not None:
            last.wait_until_over()

    def kill(self) -> None:
        """`stop_sync`, as a killed process does it: without leaving. What it holds is for whoever sees its death."""
        self._is_killed = True
        self.stop_sync()

    async def beat(self) -> None:
        """Beat now, and not in its turn: a process that was taken for dead takes its new identity."""
        await self.beside(self._beat)

    async def bury_the_dead(self) -> None:
        """Look for deaths now, and not in its turn: what the dead held is queued again when this returns."""
        await self.beside(self._bury_the_dead)

    async def hear_of_asked(self) -> None:
        """Tell of the attempts that are asked to end: now, and not in its turn."""
        if self.process is not None and self._on_asked and self.holdings.runs:
            asked = await self._store.asked_to_end(self.process)
            for callback in tuple(self._on_asked) if asked else ():  # as it is now: they come and go in other threads
                callback(asked)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the liveness loop and wait for it: the portal for code without an event loop."""
        stay = self._ensure_started()
        try:
            stay.joined.result()
        except BaseException:
            work.close()
            raise
        loop = cast("asyncio.AbstractEventLoop", stay.loop)
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    async def beside(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the liveness loop, so that the calling one is never held up by it; cancelled with it."""
        stay = self._ensure_started()
        await asyncio.wrap_future(stay.joined)
        loop = cast("asyncio.AbstractEventLoop", stay.loop)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), loop))

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine on the liveness loop, as long as that lasts, and wait for nothing. From any thread."""
        loop = self._ensure_started().loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                asyncio.run_coroutine_threadsafe(work(), loop)

    def _ensure_started(self) -> Stay:
        with self._starting:
            if self._stay is None:
                stay = self.make_stay(self._live, self._last_stay)
                stay.start()
                self._stay = self._last_stay = stay
                atexit.register(self._leave_at_exit)
            return self._stay

    def _leave_at_exit(self) -> None:
        """A process that ends in good order leaves; what it could not do in time, its lock tells."""
        if (stay := self._stay) is not None:
            stay.end()
            stay.wait_until_over(2.0)

    async def _live(self, stay: Stay) -> None:
        try:
            await self._store.open(migrate=self._migrate)
            process = await self._join()
        except BaseException as error:  # noqa: BLE001 - it is raised where the start was asked for
            await self._give_up(stay, error)
            return
        stay.joined.set_result(process)
        await self._live_until(stay.stop)
        await (self._store.close() if self._is_killed else self._leave())

    async def _give_up(self, stay: Stay, error: BaseException) -> None:
        with self._starting:
            if self._stay is stay:
                self._stay = None
                atexit.unregister(self._leave_at_exit)
        try:
            await self._store.close()
        finally:
            stay.joined.set_exception(error)

    async def _live_until(self, stop: asyncio.Event) -> None:
        """Two loops: what others ask of this process, and what it says, may wait long; its heart must not."""
        self._next_beat = self._lookout.next_look(time.monotonic())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again_until(stop, self._beat_in_turn, self._seconds_to_beat))
            group.create_task(self._again_until(stop, self._hear_and_describe, _seconds_to_look))

    async def _again_until(
        self, stop: asyncio.Event, do: Callable[[], Coroutine[Any, Any, None]], pause: Callable[[], float]
    ) -> None:
        while not stop.is_set():
            try:
                await do()
            except StoreError as error:
                emit(logging.WARNING, "liveness.store_unavailable", process=self.process, reason=str(error))
            except Exception as error:  # noqa: BLE001 - a mistake here must not end the heartbeat: every job would be lost by it
                emit(logging.ERROR, "liveness.failed", error, process=self.process)
            except Crash:  # a store that a test has crashed answers nothing more
                stop.set()
                return
            await _sleep_unless(stop, pause())

    def _seconds_to_beat(self) -> float:
        return min(_seconds_to_look(), self._next_beat - time.monotonic())

    async def _beat_in_turn(self) -> None:
        if time.monotonic() >= self._next_beat:  # first: trouble in looking at others must not stop our heart
            await self._beat()
        await self._bury_the_dead()

    async def _hear_and_describe(self) -> None:
        await self.hear_of_asked()
        await self._describe()

    async def _join(self) -> str:
        process, began = new_id(), time.monotonic()
        await self._store.join(Process(process, os.getpid(), socket.gethostname()))
        self._shown_alive_at = began
        self._lookout.forget()
        self.process = process
        return process

    async def _leave(self) -> None:
        try:
            if self.process is not None:
                await self._store.leave(self.process)
        except StoreError as error:
            emit(logging.WARNING, "liveness.store_unavailable", process=self.process, reason=str(error))
        finally:
            self.process = None
            await self._store.close()

    async def _beat(self) -> None:
        began = time.monotonic()
        self._next_beat = self._lookout.next_look(began)
        if self.process is None:
            await self._join()
            return
        before = self.holdings.known()
        beat = await self._ask_for_beat(self.process)
        if beat is None:
            await self._begin_anew()
            return
        self._shown_alive_at = began
        differ = differences(before, beat, self.holdings.known())
        still = self._lookout.look(beat, began, time.monotonic())
        self._next_beat = self._lookout.next_look(began)
        self.holdings.forget(differ.lost.items())
        self._tell_lost(differ.lost)
        await self._give_back(self.process, differ)
        for process, counter in still.dead:
            emit(logging.WARNING, "process.died", process=process, jobs=await self._bury(process, counter))
        for process, _ in still.frozen:
            emit(logging.WARNING, "process.frozen", process=process)
        if still.frozen or beat.has_orphans:
            await self._store.reap(still.frozen, SUSPECT_AFTER, SUSPECT_DELAY_SECONDS)

    async def _ask_for_beat(self, process: str) -> Beat | None:
        try:
            return await self._store.beat(process)
        except BaseException:
            self._lookout.miss()
            raise

    async def _begin_anew(self) -> None:
        """This process was taken for dead: what it held is lost, and it goes on under a new identity."""
        emit(logging.WARNING, "liveness.taken_for_dead", process=self.process)
        self.process = None
        self._tell_lost(self.holdings.clear())
        await self._join()

    async def _give_back(self, process: str, differ: Differences) -> None:
        if not differ.has_unknown:
            return
        files, reservations = differ.unknown_files, differ.unknown_reservations
        given_back = await self._store.give_back(process, differ.unknown, files, reservations)
        for (job, _), was_held in zip(differ.unknown, given_back, strict=True):
            if was_held:  # else it was let go after the beat had seen it
                emit(logging.WARNING, "job.given_back", job_id=job, process=process)

    async def _bury_the_dead(self) -> None:
        for process in await self._store.dead():
            emit(logging.WARNING, "process.died", process=process, jobs=await self._bury(process, None))

    async def _bury(self, process: str, counter: int | None) -> int:
        """Queue again what a dead process holds, page by page; how many jobs that were."""
        jobs = 0
        while True:
            reaped = await self._store.reap([(process, counter)], SUSPECT_AFTER, SUSPECT_DELAY_SECONDS)
            jobs += reaped.jobs
            if not reaped.more:
                return jobs

    async def _describe(self) -> None:
        """Say what this process runs jobs of, or that it does no more, unless that is known."""
        process, served = self.process, tuple(tell() for tell in tuple(self._served))
        has_served = self._described[0] == process
        if process is None or not (served or has_served) or self._described == (process, served):
            return
        if await self._store.describe(process, _together(served)):
            self._described = process, served

    def _tell_lost(self, attempts: dict[str, int]) -> None:
        if attempts:
            for callback in tuple(self._on_lost):  # as above
                callback(attempts)

    def _forget_inherited(self) -> None:
        """In a forked child: the thread is the parent's, and so is the life it shows."""
        self._starting = threading.Lock()
        self._stay, self._last_stay, self.process = None, None, None
        self._shown_alive_at = -math.inf
        self.holdings = Holdings()


def _together(served: Sequence[Served]) -> Served:
    """What several workers of one process run."""
    return Served(
        tasks={task: fingerprint for one in served for task, fingerprint in one.tasks.items()},
        queues=None
        if any(one.queues is None for one in served)
        else sorted({q for one in served for q in one.queues or ()}),
        concurrency=sum(one.concurrency for one in served),
        threads=sum(one.threads for one in served),
        version=next((one.version for one in reversed(served) if one.version), ""),
        threaded=sorted({task for one in served for task in one.threaded}),
        children=sum(one.children for one in served),
        apart=sorted({task for one in served for task in one.apart}),
        relays=sorted({task for one in served for task in one.relays}),
        broker_trouble=next((one.broker_trouble for one in served if one.broker_trouble), ""),
        hosted=sorted({task for one in served for task in one.hosted}),
        results_trouble=next((one.results_trouble for one in served if one.results_trouble), ""),
    )


def _seconds_to_look() -> float:
    return LOCK_LOOK_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311


async def _sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
