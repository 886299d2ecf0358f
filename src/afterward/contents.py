"""The contents of files on their way into the store: chunk by chunk, never a whole file in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from afterward.faults import crash_point
from afterward.holdings import Holdings
from afterward.job import NewFile, NewJob
from afterward.stores.base import Store

CHUNK_BYTES = 256 * 1024
"""Small enough that no other write waits long for it, large enough that a file is not slowed down by fsyncs."""


class Contents:
    """Stores what the files of new jobs contain, in a process's name, until their jobs are stored."""

    def __init__(self, store: Store, holdings: Holdings) -> None:
        self._store = store
        self._holdings = holdings

    @contextmanager
    def expected(self, jobs: Sequence[NewJob]) -> Generator[None]:
        """While it lasts, the files of these jobs may be stored. What is no job's then is dropped by a heartbeat."""
        files = [file.id for job in jobs for file in job.files]
        self._holdings.expect_files(files)
        try:
            yield
        finally:
            self._holdings.forget_files(files)

    async def put(self, jobs: Sequence[NewJob], process: str) -> bool:
        """Store the content of all their files; False when the process had lost its row before all was stored."""
        for job in jobs:
            for file in job.files:
                if not await self._put(file, process):
                    return False
        return True

    async def _put(self, file: NewFile, process: str) -> bool:
        loop = asyncio.get_running_loop()
        number, is_last = 0, False
        while not is_last:
            data = await loop.run_in_executor(None, file.content.read, number * CHUNK_BYTES, CHUNK_BYTES)
            is_last = len(data) < CHUNK_BYTES
            if not await self._store.put_chunk(file.id, number, data, process, is_last=is_last):
                return False
            crash_point("after_chunk")
            number += 1
        return True
