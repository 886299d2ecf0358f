"""The contents of files, in chunks: stored, linked to their jobs, read, and freed a few chunks at a time."""

from __future__ import annotations

from collections.abc import Iterable

from afterward.faults import crash_point
from afterward.job import NewJob
from afterward.stores.base import Chunk
from afterward.stores.postgres.connection import Connection
from afterward.stores.postgres.desk import Desk
from afterward.text import is_storable


async def put_chunk(  # noqa: PLR0917 - as the operation has them
    desk: Desk, connection: Connection, file: str, number: int, data: bytes, process: str, is_last: bool
) -> bool:
    """Store one chunk in the name of a process; False when that has no liveness row."""
    async with connection.transaction():
        if number == 0:
            await connection.execute(desk["begin_file"], file, process)
        if await connection.fetchval(desk["put_chunk"], file, number, data, process) is None:
            return False
        if is_last:
            await connection.execute(desk["end_file"], file, number + 1)
    return True


async def are_whole(desk: Desk, connection: Connection, job: NewJob) -> bool:
    """Is the content of all of a job's files there, and no other job's?"""
    files = {file.id for file in job.files}
    whole = await connection.fetch(desk["whole_files"], list(files), job.id)
    return len(whole) == len(files)


async def link(desk: Desk, connection: Connection, job: NewJob) -> None:
    """Its files are this job's from here on."""
    await connection.execute(desk["link_files"], [file.id for file in job.files], job.id)


async def unlink(desk: Desk, connection: Connection, files: Iterable[str], job: str) -> None:
    """This job does not need them any more."""
    await connection.execute(desk["unlink_files"], list(files), job)


async def sweep(desk: Desk, connection: Connection, limit: int) -> int:
    """Free at most so many chunks of files that nobody wants; how many they were."""
    freed = 0
    while freed < limit and (file := await connection.fetchval(desk["unwanted_file"])) is not None:
        if await connection.fetchval(desk["open_up_file"], file) is None:
            continue
        chunks = len(await connection.fetch(desk["free_chunks"], file, limit - freed))
        freed += chunks
        crash_point("in_sweep")
        if freed < limit or not chunks:
            await connection.execute(desk["free_file"], file)
    return freed


async def get_chunk(desk: Desk, connection: Connection, file: str, number: int) -> Chunk | None:
    """One chunk of a file that is whole, or None."""
    row = await connection.fetchrow(desk["get_chunk"], file, number) if is_storable(file) else None
    return None if row is None else Chunk(row["data"], row["is_last"])
