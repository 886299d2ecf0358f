"""A suspect gets its files in its own process too: they are handed over by its worker, and it needs no store."""

import hashlib
import io
import json
import os
from collections.abc import AsyncIterator

import pytest
from fastapi import UploadFile

from afterward.engine.executor import Executor
from afterward.engine.files import Chunks, given
from afterward.engine.pool import Pool
from afterward.engine.threads import Threads
from afterward.errors import FileLost, StoreUnavailable
from afterward.job import Failed, Lease, NewJob, Outcome, Released, Succeeded
from tests.support.reports import unheard
from tests.support.uploading import digest

pytestmark = pytest.mark.anyio

SIZES = [0, 1, 100_000, 3 * 1024 * 1024]


def prepared() -> tuple[NewJob, dict[str, bytes]]:
    """A job with several files, and their contents by their ids."""
    contents = [number.to_bytes() * size for number, size in enumerate(SIZES)]
    files = [UploadFile(io.BytesIO(data), filename=f"{len(data)}\ud800\0") for data in contents]
    job = digest.prepare(files[0], files[1:])
    return job, {file.id: data for file, data in zip(job.files, contents, strict=True)}


def suspect(job: NewJob) -> Lease:
    return Lease(job.id, 3, "process", job.task, job.arguments, deaths=2)


def chunks_in(contents: dict[str, bytes]) -> Chunks:
    async def chunks(file: str) -> AsyncIterator[bytes]:
        if file not in contents:
            raise FileLost(file)
        for start in range(0, max(1, len(contents[file])), 65_536):
            yield contents[file][start : start + 65_536]

    return chunks


async def run_apart(job: NewJob, chunks: Chunks) -> Outcome:
    pool = Pool(chunks)
    outcome = await pool.run(digest, suspect(job), unheard())
    await pool.closed()
    return outcome


async def test_a_suspect_gets_its_files() -> None:
    job, contents = prepared()
    outcome = await run_apart(job, chunks_in(contents))
    assert isinstance(outcome, Succeeded)
    assert outcome.result is not None
    pid, *found = json.loads(outcome.result)
    assert pid != os.getpid()
    expected: list[object] = []
    for data in contents.values():
        expected += [repr(f"{len(data)}\ud800\0"), len(data), hashlib.sha256(data).hexdigest()]
    assert found == expected
    assert list(outcome.files) == list(contents)


async def test_a_file_that_the_store_has_lost_fails_its_job_there_as_here() -> None:
    """Nothing makes it come back, and an empty one in its place would be a lie."""
    job, contents = prepared()
    lost, *_ = contents
    del contents[lost]
    outcome = await run_apart(job, chunks_in(contents))
    assert isinstance(outcome, Failed)
    assert outcome.failure.kind == "afterward.errors.FileLost"
    args, kwargs = digest.arguments.load(job.arguments)
    with pytest.raises(FileLost):
        async with given(args, kwargs, chunks_in(contents), lambda callback: False):
            pass


async def test_a_file_that_is_lost_is_told_to_who_hears_of_failures() -> None:
    job, _ = prepared()
    heard: list[BaseException] = []
    threads = Threads()
    executor = Executor(threads, lambda stored: None, chunks_in({}), lambda lease, error: heard.append(error))
    outcome = await executor.run(digest, suspect(job), unheard())
    threads.stop()
    assert isinstance(outcome, Failed)
    assert [type(error) for error in heard] == [FileLost]


async def test_while_the_store_does_not_answer_a_suspect_waits() -> None:
    """No doing of the job's."""

    async def chunks(_file: str) -> AsyncIterator[bytes]:
        yield b"a beginning"
        raise StoreUnavailable("locked")

    job, _ = prepared()
    outcome = await run_apart(job, chunks)
    assert isinstance(outcome, Released)
    assert "locked" in outcome.note
