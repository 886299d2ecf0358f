"""Existing Celery tasks, whose code does not change: stored, published, run by a real worker, and followed."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery import Celery, chain, chord, group
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from afterward import Afterward, BackgroundTasks
from afterward.celery import relay
from afterward.errors import ArgumentError, ConfigurationError, TaskError
from afterward.job import Job, Ruling, Status
from tests.support.their_fleet import Shop
from tests.support.waiting import soon, told

pytestmark = pytest.mark.anyio


async def test_what_an_endpoint_adds_runs_in_the_fleet_and_its_result_is_the_job_s(shop: Shop) -> None:
    job = await shop.add(shop.theirs.add, 2, other=3)
    ended = await shop.ended(job)
    assert (ended.status, ended.result, ended.task, ended.attempt) == (Status.succeeded, "5", "celery:theirs.add", 1)


async def test_a_handle_gives_the_result(shop: Shop) -> None:
    handle = await shop.tasks.celery_task(shop.theirs.add).enqueue(2, 3)
    assert await handle.result(timeout=20) == 5


async def test_a_signature_is_added_with_what_it_says(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "notes"
    signature = shop.theirs.note.s(file=str(file)).set(link=shop.theirs.note.si("linked", file=str(file)))
    await shop.ended(await shop.add(signature, "first"))
    await soon(lambda: file.exists() and file.read_text() == "first\nlinked\n", seconds=20)


async def test_a_chain_ends_as_its_last_task_does(shop: Shop) -> None:
    ended = await shop.ended(await shop.add(chain(shop.theirs.add.s(1, 2), shop.theirs.add.s(3), shop.theirs.add.s(4))))
    assert (ended.status, ended.result) == (Status.succeeded, "10")
    ended = await shop.ended(await shop.add(shop.theirs.fail.si("broken") | shop.theirs.add.s(4)))
    assert ended.failure is not None
    assert (ended.status, ended.failure.kind) == (Status.failed, "LookupError")


async def test_a_failure_is_told_as_the_fleet_has_seen_it(shop: Shop) -> None:
    jobs = [await shop.ended(await shop.add(shop.theirs.fail, text)) for text in ("no 'shelf'", "no 'book'")]
    first, other = [job.failure for job in jobs]
    assert first is not None
    assert other is not None
    assert (jobs[0].status, first.kind, first.message) == (Status.failed, "LookupError", "no 'shelf', 3")
    assert "raise LookupError(message, 3)" in first.traceback
    assert first.signature == other.signature


async def test_a_retry_by_celery_is_told_in_the_log(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "there"
    job = await shop.add(shop.theirs.flaky, str(file))

    async def is_told() -> bool:
        return await shop.lines(job) != []

    await told(is_told, seconds=20)
    file.touch()
    ended = await shop.ended(job)
    assert (ended.status, ended.result, ended.attempt, ended.failures) == (Status.succeeded, '"there"', 1, 0)
    assert (await shop.lines(job))[0] == "Celery tries it again, after ValueError: not there yet"


async def test_what_runs_is_shown_to_run_and_ends_when_it_is_cancelled(shop: Shop, tmp_path: Path) -> None:
    job = await shop.add(shop.theirs.nap, 60, str(tmp_path / "naps"))

    async def is_followed() -> bool:
        found = await shop.job(job)
        return found.status is Status.running and found.handed_at is not None

    await told(is_followed, seconds=20)
    assert await shop.tasks.cancel(job) is Ruling.asked
    ended = await shop.ended(job)
    assert (ended.status, ended.note) == (Status.cancelled, "its task was revoked in Celery")


async def test_a_person_s_retry_is_another_attempt_and_is_told(shop: Shop) -> None:
    job = await shop.add(shop.theirs.fail, "broken")
    await shop.ended(job)
    assert await shop.tasks.retry(job) is Ruling.done

    async def has_failed_again() -> bool:
        found = await shop.job(job)
        return found.status is Status.failed and found.attempt == 2

    await told(has_failed_again, seconds=20)
    [line] = await shop.lines(job)
    assert line.startswith(f"it is published as attempt 2, with the id {job}-2 in Celery")


async def test_a_time_to_come_is_kept_by_the_store(shop: Shop, tmp_path: Path) -> None:
    """And counts from the call on."""
    began = datetime.now(UTC)
    later = await shop.job(await shop.add(shop.theirs.add.s(1, 2).set(countdown=3600)))
    assert timedelta(seconds=3599) < later.run_at - began < timedelta(seconds=3660)
    at = datetime(2100, 1, 1, tzinfo=UTC)
    assert (await shop.job(await shop.add(shop.theirs.add.s(1, 2).set(eta=at)))).run_at == at
    ended = await shop.ended(await shop.add(shop.theirs.add.s(1, 2).set(countdown=0.2, expires=3600)))
    assert ended.result == "3"


async def test_one_that_ignores_its_result_has_succeeded_once_it_is_confirmed(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "notes"
    job = await shop.add(shop.theirs.quiet, str(file))
    assert (await shop.ended(job)).status is Status.succeeded
    [line] = await shop.lines(job)
    assert line.endswith("the last that is heard of it: theirs.quiet ignores its result")
    await soon(file.exists, seconds=20)


async def test_what_is_returned_is_kept_as_those_who_look_know_it(shop: Shop) -> None:
    ended = await shop.ended(await shop.add(shop.theirs.made))
    assert ended.result == ('{"at":"2030-01-02T00:00:00Z","id":"00000000-0000-0000-0000-000000000007","parts":[1,2]}')


async def test_a_result_that_is_too_large_is_left_where_it_is_and_that_is_told(shop: Shop) -> None:
    job = await shop.add(shop.theirs.much, 300_000)
    ended = await shop.ended(job)
    assert (ended.status, ended.result) == (Status.succeeded, None)
    assert "300,002 bytes, more than the 262,144 allowed" in (await shop.lines(job))[0]


async def test_a_task_that_only_the_fleet_has_is_known_by_its_name_once_it_is_declared(shop: Shop) -> None:
    name = "theirs.add"
    shop.theirs.app.tasks.pop(name)
    with pytest.raises(ConfigurationError, match=r'tasks.celery_task\("theirs.add"\)'):
        shop.tasks.foreign.task_for(shop.theirs.app.signature(name, (1, 2)))
    handle = await shop.tasks.celery_task(name).options(unique="one").enqueue(1, 2)
    assert await handle.result(timeout=20) == 3


async def test_what_cannot_be_handed_over_is_refused_at_the_call(shop: Shop) -> None:
    task = shop.tasks.celery_task(shop.theirs.add)
    with pytest.raises(ArgumentError, match=r"args\[1\] \(object\) cannot be stored"):
        task.prepare(1, object())
    with pytest.raises(ArgumentError, match="tuple comes back as list"):
        task.prepare(1, (2, 3))
    with pytest.raises(ArgumentError, match="missing 1 required positional argument"):
        task.prepare(1)
    with pytest.raises(ArgumentError, match="more than the 262,144 allowed"):
        task.prepare(1, "x" * 300_000)
    add = shop.theirs.add.s(1, 2)
    for several in (group(add, add), chord([add, add], shop.theirs.made.si())):
        with pytest.raises(ArgumentError, match="cannot be handed over: what it starts is several tasks at once"):
            shop.tasks.celery_task(several)
    with pytest.raises(TaskError, match="leave out task_id="):
        shop.tasks.celery_task(shop.theirs.add.s(1, 2).set(task_id="mine")).prepare()
    other = Celery("other", set_as_current=False)
    with pytest.raises(ConfigurationError, match="is of the Celery app 'other', and Afterward"):
        shop.tasks.celery_task(other.signature("other.add"))


async def test_one_that_is_sent_on_only_when_a_person_says_so(shop: Shop, tmp_path: Path) -> None:
    """What nobody hears of stays so; a person can have it published once more, and its log tells it."""
    task = shop.tasks.celery_task(shop.theirs.note)
    job = (await task.options(queue="nobody").enqueue("once", file=str(tmp_path / "notes"))).id

    async def is_handed() -> Job | None:
        found = await shop.job(job)
        return found if found.handed_at is not None else None

    await told(is_handed, seconds=20)
    [reason, *_] = await shop.tasks.why(job)
    assert "not heard of since" in reason.text
    assert await shop.tasks.store.hasten([job]) == [Ruling.done]

    async def is_published_again() -> bool:
        found = await shop.job(job)
        return found.handed_at is not None and found.attempt == 2

    await told(is_published_again, seconds=20)
    assert "with the id" in (await shop.lines(job))[0]


async def test_where_the_user_says_so_it_is_published_again_by_itself(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same id, and its log tells it."""
    monkeypatch.setattr(relay, "LOOK_SECONDS", 0.1)
    task = shop.tasks.celery_task(shop.theirs.note, republish_after=0.1)
    job = (await task.options(queue="nobody").enqueue("once", file=str(tmp_path / "notes"))).id

    async def is_told() -> list[str]:
        return await shop.lines(job)

    [line] = await told(is_told, seconds=20)
    assert line.startswith("it is published once more, for nothing was heard of it")
    assert (await shop.job(job)).attempt == 1


async def test_without_a_broker_a_celery_task_stays_any_function(tmp_path: Path) -> None:
    tasks = Afterward(f"sqlite:///{tmp_path}/jobs.db")
    assert tasks.foreign_task(Celery("other", set_as_current=False).signature("other.add")) is None


async def test_of_a_celery_task_that_nobody_hands_over_the_log_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is called here, in memory, as FastAPI's own tasks are."""
    fleet = Celery("other", set_as_current=False)
    called: list[str] = []

    @fleet.task(name="other.note", shared=False)
    def note(text: str) -> None:
        called.append(text)

    tasks, app = Afterward(f"sqlite:///{tmp_path}/jobs.db"), FastAPI()
    tasks.install(app)

    @app.post("/notes")
    async def add(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "called")

    async with AsyncClient(transport=ASGITransport(app), base_url="http://shop") as client:
        assert (await client.post("/notes")).status_code == 200
    assert called == ["called"]
    assert "task.in_memory task=other.note" in caplog.text


def test_celery_is_not_imported_for_who_does_not_use_it() -> None:
    code = "import sys, afterward; afterward.BackgroundTasks().add_task(print); sys.exit('celery' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
