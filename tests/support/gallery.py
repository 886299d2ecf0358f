"""A store with jobs of every kind, as after a day of work: what pages are looked at with."""

import asyncio
import contextlib
import json
import random
import threading
import time
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from afterward.identity import new_id
from afterward.job import (
    Cancelled,
    EventKind,
    Failed,
    Failure,
    Lease,
    NewEvent,
    NewJob,
    Outcome,
    Placement,
    Process,
    Report,
    Retry,
    Succeeded,
)
from afterward.signatures import signature_of
from afterward.stores.base import Wanted
from afterward.stores.handing import HandOver
from afterward.stores.seen import Served
from afterward.stores.sqlite import SQLiteStore
from tests.support.stores import Clock

HOUR = 3600.0
MARKUP = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>\'"&{{ 7 * 7 }}'
"""What is to be shown as it is, wherever it stands."""

_LONG_KIND = "sqlalchemy.dialects.postgresql.asyncpg.AsyncAdapt_asyncpg_dbapi.OperationalError"
_TRACEBACK = """Traceback (most recent call last):
  File "/app/shop/mail.py", line 41, in send_receipt
    await server.send(message, timeout=10)
  File "/app/shop/smtp.py", line 118, in send
    raise ConnectionRefusedError(f"{self.host}:{self.port} refused the connection")
ConnectionRefusedError: mail.example.com:25 refused the connection
"""
_FAILURES = [
    ("ConnectionRefusedError", "mail.example.com:25 refused the connection", _TRACEBACK),
    ("shop.payments.CardDeclined", "the card of order 4711 was declined: insufficient_funds", ""),
    ("KeyError", "'amount'", ""),
]


def failure(kind: str, message: str, traceback: str = "") -> Failure:
    """A failure, signed as those of real attempts are."""
    text = traceback or f"Traceback (most recent call last):\n{kind}: {message}\n"
    return Failure(kind, message, text, signature_of(kind, message))


@dataclass
class Gallery:
    """`jobs`: the ids of those that have a name of their own."""

    file: Path
    jobs: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def url(self) -> str:
        return f"sqlite:///{self.file}"


@contextmanager
def gallery(file: Path, *, day: int = 300) -> Generator[Gallery]:
    """The store, with its worker alive, while the block lasts. `day`: how many jobs have ended within the last day."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    made: Future[Gallery] = Future()

    async def hang(over: asyncio.Event) -> None:
        async with AsyncExitStack() as closing:
            try:
                painter = Painter(file, closing)
                await painter.open()
                made.set_result(await painter.paint(day))
            except BaseException as error:
                made.set_exception(error)
                raise
            while not over.is_set():
                await painter.beat()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), 0.5)

    over = asyncio.Event()
    hanging = asyncio.run_coroutine_threadsafe(hang(over), loop)
    try:
        yield made.result(60)
    finally:
        loop.call_soon_threadsafe(over.set)
        hanging.exception(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


class Painter:
    """What puts jobs into a store, at times that have passed."""

    def __init__(self, file: Path, closing: AsyncExitStack) -> None:
        self.gallery = Gallery(file)
        self.clock = Clock(time.time())
        self.store = SQLiteStore(str(file), clock=self.clock)
        self._closing = closing
        self._now = self.clock.now
        self._random = random.Random(7)

    async def open(self) -> None:
        await self.store.open()
        self._closing.push_async_callback(self.store.close)

    async def paint(self, day: int) -> Gallery:
        await self._workers()
        await self._a_day(day)
        await self._special()
        return self.gallery

    async def beat(self) -> None:
        """Have its processes live."""
        self.clock.now = time.time()
        for name in ("worker", "second", "celery", "api"):
            await self.store.beat(name)

    async def _workers(self) -> None:
        """The worker that runs jobs, one of the version before, one of Celery's, and a process that only stores."""
        tasks = {"shop.mail:send_receipt": "a", "shop.reports:build_report": "b", "shop.orders:ship": "c"}
        for_celery = {"shop.pictures:render": "d"}
        for name, host, hours, served in (
            ("worker", "web-1.example.com", 5.0, Served(tasks, None, 100, 16, "2026.11.2")),
            ("second", "web-2.example.com", 0.2, Served(tasks, ["default", "mail"], 20, 4, "2026.11.3")),
            (
                "celery",
                "celery-1.example.com",
                8.0,
                Served(for_celery, None, 4, 0, "2026.11.3", hosted=list(for_celery)),
            ),
            ("api", "api-1.example.com", 30.0, None),
        ):
            self.clock.now = self._now - hours * HOUR
            await self.store.join(Process(name, 4000 + int(hours * 10), host))
            self._closing.push_async_callback(self.store.leave, name)
            if served is not None:
                await self.store.describe(name, served)

    async def _a_day(self, count: int) -> None:
        """What has ended, more of it by day than by night, and more lately."""
        ages = sorted((self._random.betavariate(1, 2.2) * 23.9 * HOUR for _ in range(count)), reverse=True)
        for number, age in enumerate(ages):
            queue, task = self._random.choice([("default", "shop.orders:ship"), ("mail", "shop.mail:send_receipt")] * 3
                                              + [("reports", "shop.reports:build_report")])  # fmt: skip
            kind = _FAILURES[self._random.choice([0, 0, 0, 1, 1, 2])]
            end: Outcome = Failed(failure(*kind)) if self._random.random() < 0.07 else Succeeded('{"sent": true}')
            await self.ended(age, end, queue=queue, task=task, arguments=json.dumps({"order": 4000 + number}))

    async def ended(self, age: float, outcome: Outcome, **said: Any) -> str:
        """A job that was added so many seconds ago, and has ended a little later."""
        lease = await self.running(age, **said)
        self.clock.now = self._now - age + self._random.lognormvariate(0, 1.2)
        assert await self.store.finish([(lease, outcome)]) == [True]
        return lease.id

    async def running(self, age: float, wait: float | None = None, **said: Any) -> Lease:
        """A job that was added so many seconds ago, and runs since a little later."""
        self.clock.now = self._now - age
        job = await self.added(**said)
        self.clock.now += self._random.expovariate(3) if wait is None else wait
        return await self.claimed(job)

    async def claimed(self, job: NewJob) -> Lease:
        [lease] = (await self.store.claim("worker", [Wanted([job.task], 1, only=[job.id])], new_id())).leases
        return lease

    async def added(self, placement: Placement = Placement.free, process: str | None = None, **said: Any) -> NewJob:
        facts: dict[str, Any] = {"task": "shop.orders:ship", "queue": "default", "priority": 0, "arguments": "{}"}
        name = said.pop("name", None)
        job = NewJob(new_id(), **(facts | said))
        await self.store.enqueue([(job, placement)], process)
        if name:
            self.gallery.jobs[name] = job.id
        return job

    async def _special(self) -> None:
        """One of each kind, by name."""
        await self._report()
        await self._retrying()
        self.clock.now = self._now - 40
        await self.added(name="scheduled", delay=1800.0, arguments='{"order": 4900}', owner="ana@example.com")
        await self.added(Placement.held, "api", name="held", arguments='{"order": 4901}')
        handed = await self.running(40, name="handed", task="shop.orders:ship", arguments='{"order": 4905}')
        await self.store.hand_over([HandOver(handed)])
        for number in range(4):
            arguments = json.dumps({"month": number})
            await self.added(name="paused", task="shop.reports:build_report", queue="reports", arguments=arguments)
        await self.store.pause("reports", "ana@example.com")
        await self.ended(300, Cancelled("asked to end"), name="cancelled", arguments='{"order": 1}')
        origin = {"method": "POST", "path": "/send/{email}", "request_id": "b7f2c1", "client": "203.0.113.9"}
        mail = {"email": "ana@example.com", "password": "hunter2-secret", "tags": ["a", "b"], "body": "Good day"}
        await self.ended(
            90, Failed(failure(*_FAILURES[0])), name="failed", task="shop.mail:send_receipt", queue="mail",
            arguments=json.dumps(mail), origin=json.dumps(origin), owner="ana@example.com",
        )  # fmt: skip
        leak = failure(_LONG_KIND, "cannot connect to postgresql://shop:hunter3-secret@db.example.com/shop")
        await self.ended(
            700, Failed(leak), name="leaky", arguments='{"dsn": "redis://:hunter3-secret@cache.example.com"}'
        )
        await self._markup()
        asked = await self.running(50, name="asked", task="shop.orders:ship", arguments='{"order": 4902}')
        self.clock.now = self._now - 8
        await self.store.cancel([asked.id])
        self.clock.now = self._now - 12
        await self.added(name="queued", queue="mail", task="shop.mail:send_receipt", arguments='{"order": 4903}')

    async def _report(self) -> None:
        """One that runs, and says what it does."""
        lease = await self.running(
            200, 61.0, name="running", task="shop.reports:build_report", queue="default",
            arguments='{"month": 11, "token": "t0p-s3cret"}',
        )  # fmt: skip
        said: list[NewEvent] = []
        for number in range(1, 31):
            line = {"level": "WARNING" if number % 9 == 0 else "INFO", "logger": "shop.reports",
                    "message": f"row {number * 100:,} of 4,800 read from the ledger"}  # fmt: skip
            said.append(NewEvent(EventKind.log, json.dumps(line), 120 - number * 4))
            if number % 5 == 0:
                step = {"current": number * 100, "total": 4800, "message": "Reading the ledger"}
                said.append(NewEvent(EventKind.progress, json.dumps(step), 119 - number * 4))
        said.append(NewEvent(EventKind.item, json.dumps({"sheet": "November", "rows": 3000}), 0))
        self.clock.now = self._now - 1
        assert await self.store.report([(lease, Report(1, tuple(said)))]) == [True]

    async def _retrying(self) -> None:
        """One that has failed twice, and is to be tried again."""
        lease = await self.running(
            400, 2.0, name="retrying", task="shop.mail:send_receipt", queue="mail", arguments='{"order": 4711}'
        )
        for ran, delay in ((31.0, 20.0), (44.0, 600.0)):
            self.clock.now += ran
            await self.store.finish([(lease, Retry(failure(*_FAILURES[0]), delay))])
            self.clock.now += delay
            if self.clock.now < self._now:
                [lease] = (await self.store.claim("worker", [Wanted([lease.task], 1, only=[lease.id])], "t")).leases

    async def _markup(self) -> None:
        """One whose every text is markup."""
        origin = json.dumps({"method": MARKUP, "path": MARKUP, "request_id": MARKUP})
        lease = await self.running(
            30, name="markup", task=f"shop:{MARKUP}", queue=MARKUP[:90], owner=MARKUP, origin=origin, unique=MARKUP,
            arguments=json.dumps({"text": MARKUP, MARKUP: 1}),
        )  # fmt: skip
        line = {"level": "INFO", "logger": MARKUP, "message": MARKUP}
        said = [
            NewEvent(EventKind.log, json.dumps(line)),
            NewEvent(EventKind.progress, json.dumps({"current": 1, "total": 2, "message": MARKUP})),
            NewEvent(EventKind.item, json.dumps(MARKUP)),
        ]
        end = Failed(failure(MARKUP, MARKUP, MARKUP), report=Report(1, tuple(said)))
        self.clock.now = self._now - 20
        assert await self.store.finish([(lease, end)]) == [True]


def multiply(painted: Gallery, total: int) -> None:
    """Fill the store with copies of what has ended, or waits, until it has so many jobs; within the same day."""
    connection = apsw.Connection(str(painted.file))
    connection.set_busy_timeout(10_000)
    columns: list[str] = [row[1] for row in connection.execute("PRAGMA table_info(jobs)")]
    changed = {
        "id": "printf('%s-%s-7%s-8%s-%s', substr(h, 1, 8), substr(h, 9, 4), substr(h, 14, 3), substr(h, 18, 3), "
        "substr(h, 21, 12))",
        "unique_key": "NULL",
        "replaced_by": "NULL",
        "finished_at": "finished_at - age",
        "started_at": "started_at - age",
        "created_at": "created_at - age",
    }
    names = [name for name in columns if name != "seq"]
    values = ", ".join(changed.get(name, name) for name in names)
    copy = f"""
        INSERT INTO jobs ({", ".join(names)}) SELECT {values} FROM (
            SELECT *, lower(hex(randomblob(16))) AS h, abs(random() % 3600) AS age FROM jobs
            WHERE process IS NULL AND status <> 'running' AND id IN (SELECT id FROM jobs ORDER BY seq LIMIT 1000)
        )"""
    try:
        connection.execute("BEGIN IMMEDIATE")
        while connection.execute("SELECT count(*) FROM jobs").get < total:
            connection.execute(copy)
        connection.execute("COMMIT")
    finally:
        connection.close()
