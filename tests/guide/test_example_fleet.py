"""The example in `examples/fleet`: an app, a Celery worker and `afterward worker`, side by side on one store."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from afterward import Afterward, Job, Status
from servers.valkey import Valkey
from tests.support.processes import Process, Starter, environment_of_users
from tests.support.waiting import wait_until

KINDS = {"invoice", "forecast", "parcel", "mail"}
ENDED = {Status.succeeded, Status.failed, Status.cancelled}
ORDER = {"email": "ada@example.com", "cents": 500}


class Shop:
    """The three processes, and what they have done."""

    def __init__(self, folder: Path, broker: str, starter: Starter) -> None:
        self._folder = folder
        self._starter = starter
        self._ledger = folder / "ledger.txt"
        self._store = f"sqlite:///{folder}/jobs.db"
        self._environment = {
            **environment_of_users(),
            "SHOP_BROKER": broker,
            "SHOP_LEDGER": str(self._ledger),
            "AFTERWARD_URL": self._store,
        }
        self._started: list[Process] = []
        self.worker = self._start("afterward", "worker", "examples.fleet.app:app", "--queue", "default")
        imports = ["-A", "examples.fleet.shop", "worker", "--include", "examples.fleet.app"]
        self.fleet = self._start("celery", *imports, "--concurrency", "2", "--without-mingle", "--without-gossip")
        self.start_web()

    def start_web(self) -> None:
        self.web = self._start("uvicorn", "examples.fleet.app:app", "--host", "127.0.0.1", "--port", "0")
        found = wait_until(lambda: re.findall(r"http://127\.0\.0\.1:\d+", self.web.output()), "the app listens", 30)
        self._address: str = found[0]

    def _start(self, program: str, *arguments: str) -> Process:
        output = self._folder / f"{len(self._started)}-{program}.txt"
        process = self._starter.start(program, *arguments, environment=self._environment, output=output)
        self._started.append(process)
        return process

    def stop(self) -> None:
        """Each ends when it is asked to."""
        for process in self._started:
            process.stop()

    def kill(self) -> None:
        for process in self._started:
            process.kill()

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self._address, trust_env=False, timeout=30)

    async def jobs(self, kinds: set[str] = KINDS) -> list[Job]:
        """Those that do such things, once all of them have ended."""
        tasks = Afterward(self._store)
        names = {TASKS[kind] for kind in kinds}
        async with asyncio.timeout(30), tasks.running(None):
            while True:
                found = [job for job in await tasks.list(limit=1000) if job.task in names]
                if all(job.status in ENDED for job in found):
                    return found
                await asyncio.sleep(0.05)

    def done(self) -> list[tuple[str, int, int]]:
        """What was done, to which order, and by which process."""
        lines = [line.split() for line in self._ledger.read_text().splitlines()]
        return [(what, int(order), int(pid)) for what, order, pid in lines]


TASKS = {
    "invoice": "celery:examples.fleet.shop.write_invoice",
    "forecast": "examples.fleet.app:forecast",
    "parcel": "examples.fleet.app:pack",
    "mail": "examples.fleet.app:thank",
}


@pytest.fixture(scope="module")
def shop(valkey: Valkey, starter: Starter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The processes, which tests share. What has failed has said so."""
    folder = tmp_path_factory.mktemp("shop")
    with valkey.database() as broker:
        shop = Shop(folder, broker, starter)
        try:
            yield shop
            shop.stop()
        finally:
            shop.kill()
    assert not [file.name for file in folder.glob("*-*.txt") if "Traceback" in file.read_text()]


@pytest.mark.anyio
async def test_each_kind_of_job_runs_where_it_is_at_home(shop: Shop) -> None:
    """Once, and its result is told by the app, of whatever it has been."""
    async with shop.client() as client:
        jobs = (await client.post("/orders/1", json=ORDER)).json()["jobs"]
        told = {what: (await client.get(f"/jobs/{job}", params={"wait": 25})).json() for what, job in jobs.items()}
    assert {what: (job["status"], job["result"]) for what, job in told.items()} == {
        "invoice": ("succeeded", "000001-500"),
        "forecast": ("succeeded", 247),
        "parcel": ("succeeded", None),
        "mail": ("succeeded", "to ada@example.com: thank you for order 1"),
    }
    done = {what: pid for what, order, pid in shop.done() if order == 1}
    children = shop.fleet.children()
    assert len(shop.done()) == 4
    assert done["invoice"] in children
    assert done["forecast"] in children
    assert (done["parcel"], done["mail"]) == (shop.worker.pid, shop.web.pid)


async def _order_until_killed(shop: Shop) -> set[int]:
    """Four clients order; when ten orders are accepted, the app dies. Those that are accepted, of 100 and more."""
    accepted: set[int] = set()
    numbers = iter(range(100, 1000))

    async def order(client: httpx.AsyncClient) -> None:
        for number in numbers:
            try:
                response = await client.post(f"/orders/{number}", json=ORDER)
            except httpx.TransportError:
                return
            assert response.status_code == 202
            accepted.add(number)
            if len(accepted) == 10:
                shop.web.kill()

    async with shop.client() as client:
        await asyncio.gather(*(order(client) for _ in range(4)))
    return accepted


@pytest.mark.anyio
async def test_an_app_that_is_killed_loses_nothing(shop: Shop) -> None:
    """Of what it has accepted; the others go on without it, and it sends its mail when it is back."""
    accepted = await _order_until_killed(shop)
    elsewhere = await shop.jobs(KINDS - {"mail"})
    shop.start_web()
    mails = await shop.jobs({"mail"})
    assert {job.status for job in [*elsewhere, *mails]} == {Status.succeeded}
    done = Counter((what, order) for what, order, _ in shop.done() if order >= 100)
    orders = {order for _, order in done}
    assert orders >= accepted
    assert done.keys() == {(what, order) for what in KINDS for order in orders}, "an order is whole, or it is not there"
    assert {count for (what, _), count in done.items() if what != "mail"} == {1}
    attempts = sum(job.attempt for job in mails if job.attempt > 1)
    assert sum(count - 1 for (what, _), count in done.items() if what == "mail") <= attempts
