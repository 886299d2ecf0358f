"""Passing jobs on to Celery's broker: published, confirmed, handed over; and published once more while none begins."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from afterward.celery.again import FIRST_LOOK_SECONDS, Again, after
from afterward.celery.lines import reports_of
from afterward.celery.messages import Message, Published
from afterward.celery.publisher import Publisher
from afterward.engine.patience import pause_after
from afterward.errors import StoreError
from afterward.faults import crash_point
from afterward.job import Lease, Outcome, Released, Report
from afterward.liveness import Liveness
from afterward.observe import emit, is_enabled
from afterward.stores.base import Store
from afterward.stores.handing import HandOver
from afterward.stores.seen import Answer, Served

T = TypeVar("T")

AT_ONCE = 500
"""So many messages at most are published together."""

LOOK_SECONDS = 5.0
"""How often it is looked at least for messages that are to be sent once more."""

UNFIT_SECONDS = 60.0
"""How long jobs whose arguments are marked as unfit for a function here are passed over, before they are sent again."""

_LET_GO = Callable[[], None]


class Relay:
    """Passes on what a worker of this process claims for it. `published`: the tasks whose jobs it passes on, now.

    `wake`: has the worker claim again. It takes jobs only while the broker is believed to be there.
    """

    def __init__(
        self,
        store: Store,
        liveness: Liveness,
        app: Any,
        published: Callable[[], Mapping[str, Published]],
        wake: Callable[[], None],
        *,
        queues: Collection[str] | None = None,
        version: str = "",
    ) -> None:
        self._store = store
        self._liveness = liveness
        self.publisher = Publisher(app, self._hear)
        self.tell_followed: Callable[[], None] = _tell_nobody
        """Called, on its loop, when jobs that are followed have been handed over."""
        self._published = published
        self._wake = wake
        self._queues = queues
        self._version = version
        self._loop: asyncio.AbstractEventLoop | None = None
        self._taken: list[tuple[Lease, _LET_GO]] = []
        self._passing: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._stopped = asyncio.Event()
        self._unfit_since = 0.0

    async def run(self) -> None:
        """Pass on what is taken, until `stop`: then what is under way is confirmed or released."""
        self._loop = asyncio.get_running_loop()
        self.publisher.start()
        with self._liveness.serving(self._served):
            try:
                await self._take_back_until_stopped()
            finally:
                self._stopped.set()
                while self._taken or self._passing:  # also when this is cancelled: each is confirmed, or let go
                    await asyncio.wait(self._passing) if self._passing else await asyncio.sleep(0)
                await self.publisher.stop()

    def stop(self) -> None:
        """Take nothing more, and let `run` come to its end. Lawful twice, and before `run`. On its loop."""
        self._stopped.set()
        self._changed.set()

    def _hear(self) -> None:
        """The broker is there again, or it is not. From any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._hear_here)

    def _hear_here(self) -> None:
        self._changed.set()
        self._wake()

    def _served(self) -> Served:
        """What it passes on, for those who look. From any thread."""
        published = self._published()
        return Served(
            tasks={name: one.fingerprint for name, one in published.items()},
            queues=None if self._queues is None else sorted(self._queues),
            concurrency=0,
            threads=0,
            version=self._version,
            relays=sorted(published),
            broker_trouble=self.publisher.trouble or "",
        )

    # afterward.engine.elsewhere.Elsewhere

    def wants(self) -> Collection[str]:
        is_open = self._loop is not None and self.publisher.is_reachable and not self._stopped.is_set()
        return self._published().keys() if is_open else ()

    def unfit(self) -> Collection[str]:
        if time.monotonic() - self._unfit_since >= UNFIT_SECONDS:
            self._unfit_since = time.monotonic()
            return ()  # the functions of the fleet may be others by now
        return {mark for one in self._published().values() if (mark := one.fingerprint)}

    def take(self, lease: Lease, let_go: _LET_GO) -> None:
        self._taken.append((lease, let_go))
        if len(self._taken) == 1:
            asyncio.get_running_loop().call_soon(self._pass_on_taken)

    def _pass_on_taken(self) -> None:
        """All that one claim has given, together. In a task of its own: an attempt must be let go, whatever ends."""
        taken, self._taken = self._taken, []
        passing = asyncio.get_running_loop().create_task(self._pass_on(taken))
        self._passing.add(passing)
        passing.add_done_callback(self._passing.discard)

    # first publishing

    async def _pass_on(self, taken: Sequence[tuple[Lease, _LET_GO]]) -> None:
        leases = [lease for lease, _ in taken]
        try:
            reasons = await self._publish(leases)
            crash_point("after_publish")
            confirmed = [lease for lease, reason in zip(leases, reasons, strict=True) if reason is None]
            refused = [(lease, reason) for lease, reason in zip(leases, reasons, strict=True) if reason is not None]
            await asyncio.gather(self._hand_over_or_end(confirmed), self._release(refused))
        except StoreError as error:  # this process ends, and what it holds is given back then
            emit(logging.WARNING, "relay.store_unavailable", reason=str(error))
        except Exception as error:  # noqa: BLE001 - a mistake of ours: the next heartbeat gives back what is not let go
            emit(logging.ERROR, "relay.broken", error)
        finally:
            self._liveness.holdings.forget((lease.id, lease.attempt) for lease in leases)
            for _, let_go in taken:
                let_go()

    async def _publish(self, leases: Sequence[Lease]) -> list[str | None]:
        """Publish a message of each; None for each that the broker has confirmed, else why it has not."""
        messages = self._messages(leases)
        sendable = [message for message in messages if isinstance(message, Message)]
        await self._tell_of_others(leases)
        said = iter(await self.publisher.publish(sendable) if sendable else [])
        return [next(said) if isinstance(message, Message) else message for message in messages]

    def _messages(self, leases: Sequence[Lease]) -> list[Message | str]:
        """What is to be said of each, or why nothing can be."""
        published = self._published()
        return [_message(published.get(lease.task), lease) for lease in leases]

    async def _hand_over_or_end(self, leases: Sequence[Lease]) -> None:
        """The broker has confirmed these. Of some, nothing more will ever be heard: they have succeeded by that."""
        published = self._published()
        ends = {lease: published[lease.task].end(lease) for lease in leases if lease.task in published}
        over = [(lease, end) for lease, end in ends.items() if end is not None]
        for lease, _ in over:
            emit(
                logging.INFO,
                "job.published",
                job_id=lease.id,
                task=lease.task,
                attempt=lease.attempt,
                reason="it has succeeded by that, for nothing tells what becomes of it",
            )
        going_on = [lease for lease in leases if ends.get(lease) is None]
        await asyncio.gather(
            self._hand_over([_handed(published.get(lease.task), lease, FIRST_LOOK_SECONDS) for lease in going_on]),
            self._finish(over),
        )

    async def _tell_of_others(self, leases: Sequence[Lease]) -> None:
        """Of what may run twice, for an attempt before may have been published, the log tells it: before it is."""
        published = self._published()
        lines = [(lease, published[lease.task].line(lease)) for lease in leases if lease.task in published]
        await self._report([(lease, Report(1, (line,))) for lease, line in lines if line is not None])

    async def _report(self, reports: Sequence[tuple[Lease, Report]]) -> None:
        if reports:
            await self._until_answered(lambda: self._store.report(reports))

    async def _hand_over(self, handed: Sequence[HandOver]) -> None:
        """Of one that was faster, and has begun already, nothing is left to be said."""
        if not handed:
            return
        self._liveness.holdings.leave((one.lease.id, one.lease.attempt) for one in handed)
        answers = await self._until_answered(lambda: self._store.hand_over(handed))
        if any(one.is_followed for one in handed):
            self._liveness.holdings.forget((one.lease.id, one.lease.attempt) for one in handed)
            self.tell_followed()
        crash_point("after_hand_over")
        if is_enabled(logging.INFO):
            for one, accepted in zip(handed, answers, strict=True):
                if accepted and one.is_sent:
                    emit(
                        logging.INFO,
                        "job.handed_over",
                        job_id=one.lease.id,
                        task=one.lease.task,
                        attempt=one.lease.attempt,
                    )

    async def _release(self, refused: Sequence[tuple[Lease, str]]) -> None:
        """What was not confirmed is queued again, at no cost."""
        for lease, reason in refused:
            emit(
                logging.WARNING,
                "job.not_published",
                job_id=lease.id,
                task=lease.task,
                attempt=lease.attempt,
                reason=reason,
            )
        await self._finish(
            [(lease, Released(f"not published: {reason}", self._delay(lease))) for lease, reason in refused]
        )

    def _delay(self, lease: Lease) -> float:
        """One that the broker refuses is tried less often each time; all others as soon as there is a broker."""
        return min(60.0, 2.0 ** min(lease.attempt, 6)) if self.publisher.is_reachable else 1.0

    async def _finish(self, ends: Sequence[tuple[Lease, Outcome]]) -> None:
        if ends:
            self._liveness.holdings.leave((lease.id, lease.attempt) for lease, _ in ends)
            await self._until_answered(lambda: self._store.finish(ends))

    # publishing once more

    async def _take_back_until_stopped(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            self._changed.clear()
            try:
                pause = await self._take_back()
                failures = 0
            except StoreError as error:
                failures += 1
                pause = pause_after(failures)
                emit(logging.WARNING, "relay.store_unavailable", reason=str(error), retry_in=pause)
            except Exception as error:  # noqa: BLE001 - a mistake of ours must not end the relay
                pause = LOOK_SECONDS
                emit(logging.ERROR, "relay.broken", error)
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _take_back(self) -> float:
        """Look after those that have not begun; seconds until that is to be done again."""
        process, tasks = self._liveness.process, self.wants()
        if process is None or not tasks:
            return LOOK_SECONDS
        back = await self._store.take_back(process, tasks, AT_ONCE)
        keys = [(lease.id, lease.attempt) for lease in back.leases]
        for key in keys:
            self._liveness.holdings.have(*key)
        try:
            if back.leases:
                await self._look_after(back.leases, back.waited)
        finally:
            self._liveness.holdings.forget(keys)
        if back.more:
            return 0.0
        pause = LOOK_SECONDS if back.next_due is None else min(LOOK_SECONDS, back.next_due)
        return pause + random.uniform(0.1, 0.5)  # noqa: S311 - so that relays do not meet

    async def _look_after(self, leases: Sequence[Lease], waited: Sequence[float]) -> None:
        """Send those once more that may be lost; the others stay where they are."""
        messages = self._messages(leases)
        sendable = {number: message for number, message in enumerate(messages) if isinstance(message, Message)}
        waiting = await self.publisher.backlog(list(sendable.values()))
        published = self._published()
        looked = {
            number: _again(published.get(leases[number].task), waited[number], length)
            for number, length in zip(sendable, waiting, strict=True)
        }
        again = [number for number, look in looked.items() if look.sends]
        await self._tell_again([(leases[number], waited[number]) for number in again], published)
        reasons = await self.publisher.publish([sendable[number] for number in again]) if again else []
        sent = {number for number, reason in zip(again, reasons, strict=True) if reason is None}
        for number in sent:
            emit(
                logging.INFO,
                "job.published_again",
                job_id=leases[number].id,
                task=leases[number].task,
                attempt=leases[number].attempt,
                waited=waited[number],
            )
        pauses = {number: look.again for number, look in looked.items() if number in sent or not look.sends}
        await self._hand_over(
            [
                _handed(
                    published.get(lease.task), lease, pauses.get(number, FIRST_LOOK_SECONDS), is_sent=number in sent
                )
                for number, lease in enumerate(leases)
            ]
        )

    async def _tell_again(self, again: Sequence[tuple[Lease, float]], published: Mapping[str, Published]) -> None:
        """Of what may run twice by being sent again, the log tells it: before it is."""
        lines = [
            (lease, f"it is published once more, for nothing was heard of it for {waited:.0f} s; it may run twice")
            for lease, waited in again
            if (one := published.get(lease.task)) is not None and one.is_followed
        ]
        await self._report(await self._until_answered(lambda: asyncio.ensure_future(reports_of(self._store, lines))))

    # the store

    async def _until_answered(self, ask: Callable[[], Answer[T]]) -> T:
        """Ask until there is an answer. Raises `StoreError` when there is none, and this is to stop."""
        failures = 0
        while True:
            try:
                return await ask()
            except StoreError as error:
                if self._stopped.is_set():
                    raise
                failures += 1
                pause = pause_after(failures)
                emit(logging.WARNING, "relay.store_unavailable", reason=str(error), retry_in=pause)
                await asyncio.sleep(pause)


def _tell_nobody() -> None:
    """Nothing is followed here."""


def _again(published: Published | None, waited: float, waiting: int | None) -> Again:
    """What is followed is sent again when its user has said, though it may wait there."""
    if published is None or published.republish_after is None:
        return after(waited, waiting)
    return Again(sends=True, again=published.republish_after)


def _handed(published: Published | None, lease: Lease, again: float, *, is_sent: bool = True) -> HandOver:
    if published is None:
        return HandOver(lease, again, is_sent=is_sent)
    if published.is_followed:
        return HandOver(lease, published.republish_after, is_followed=True, is_sent=is_sent)
    return HandOver(lease, again if published.republishes else None, is_sent=is_sent)


def _message(published: Published | None, lease: Lease) -> Message | str:
    if published is None:
        return f"task {lease.task} is not known here any more"
    try:
        return published.message(lease)
    except Exception as error:  # noqa: BLE001 - whatever a codec of the user's raises
        return f"{type(error).__name__}: {error}"
