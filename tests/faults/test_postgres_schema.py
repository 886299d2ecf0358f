"""The schema of a PostgreSQL store: made once, as it is written down, and changed under those who use it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.patience import wait_until
from tests.support.catalog import WRITTEN, description
from tests.support.processes import REPOSITORY, environment_of_users
from tests.support.served_site import Clients, ServedSite

PROCESSES = 10


@pytest.mark.timeout(120)
def test_ten_processes_that_start_together_on_an_empty_database_make_the_schema_once_and_all_live(
    served: ServedSite,
) -> None:
    workers = [served.work() for _ in range(PROCESSES)]
    wait_until(lambda: len(served.tables.processes()) == PROCESSES, "all have joined", 60)
    assert {worker.pid for worker in workers} == set(served.tables.processes().values())
    applied = served.tables.query("SELECT number FROM afterward.migrations ORDER BY number")
    newest = max(number for (number,) in applied)
    assert applied == [(number,) for number in range(1, newest + 1)]
    for worker in workers:
        wait_until(lambda worker=worker: worker.events("store.opened") or worker.events("store.slow"))
    assert "store.unavailable" not in served.outputs()


def test_the_schema_is_what_is_written_down(served: ServedSite) -> None:
    """All migrations, one after the other, lead there. A change that was meant: `python -m tests.support.catalog`."""
    served.work()
    wait_until(served.tables.processes)
    assert description(served.url) == WRITTEN.read_text()


def of_next_version(folder: Path) -> Path:
    """A copy of the library that has one migration more: what a version to come may do, it only adds."""
    shutil.copytree(
        REPOSITORY / "src" / "afterward", folder / "afterward", ignore=shutil.ignore_patterns("__pycache__")
    )
    migrations = folder / "afterward" / "stores" / "postgres" / "migrations"
    number = max(int(file.name.split("_")[0]) for file in migrations.glob("*.sql")) + 1
    (migrations / f"{number:04}_novel.sql").write_text(
        "ALTER TABLE afterward.jobs ADD COLUMN novel text;\n"
        "ALTER TABLE afterward.finished ADD COLUMN novel text;\n"
        "ALTER TABLE afterward.processes ADD COLUMN novel text;\n"
        "ALTER TABLE afterward.attempts ADD COLUMN novel text;\n"
    )
    return folder


def migrate(url: str, library: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "afterward", "migrate", "--store", url],
        check=True,
        timeout=60,
        env={**environment_of_users(), "PYTHONPATH": str(library)},
        cwd=REPOSITORY,
    )


@pytest.mark.timeout(240)
def test_what_runs_goes_on_while_the_next_version_migrates(served: ServedSite, tmp_path: Path) -> None:
    """Prepared statements meet tables that have changed; nobody notices. And the old code can be started again."""
    served.serve(worker=0, log="WARNING")
    served.work(log="WARNING")
    library = of_next_version(tmp_path / "next")
    with Clients(served.door, "quick+fails_at_first+followed", clients=1, seconds=0.01) as clients:
        wait_until(lambda: len(served.effects.runs()) > 60, "jobs run")
        migrate(served.url, library)
        served.tables.query("SELECT novel FROM afterward.jobs LIMIT 0")
        so_far = len(served.effects.runs())
        wait_until(lambda: len(served.effects.runs()) > so_far + 60, "jobs run")
        assert served.door.request("POST", "/files/digest", key="key~file", mebibytes=0.1).status == 202
    wait_until(lambda: served.tables.unfinished() == 0, "what they have asked for meanwhile is done", 120)
    assert clients.refused == []
    jobs = served.tables.jobs()
    assert {f"{key}-{number}" for key in clients.accepted for number in range(3)} <= jobs.keys()
    assert {job.status for job in jobs.values()} == {"succeeded"}
    assert "unavailable" not in served.outputs()

    late = served.work()
    wait_until(lambda: late.pid in served.tables.processes().values(), "it lives")
    served.door.add("quick", "key~late")
    wait_until(lambda: served.tables.unfinished() == 0)


def test_a_schema_of_the_next_hundred_is_refused(served: ServedSite) -> None:
    """The versions before it cannot work with it, and it is left as it is."""
    served.work()
    wait_until(served.tables.processes)
    served.tables.query("INSERT INTO afterward.migrations (number) VALUES (101) RETURNING number")
    late = served.work()
    assert late.wait() != 0
    assert "has schema 101, and this version of afterward knows" in late.output()
    assert "upgrade afterward" in late.output()
