"""The files of an attempt: out of the store into temporary files of its own, from their start, in bounded memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, Protocol, cast

from afterward.errors import FileLost
from afterward.stores.base import Chunk
from afterward.uploads import StoredFile, give

IN_MEMORY_BYTES = 1024 * 1024
"""A file up to this size is not written to the disk again for an attempt; it is what Starlette does for an upload."""


class Chunks(Protocol):
    """The content of a stored file, by its id. Raises `StoreError`, or `FileLost` when it is not there."""

    def __call__(self, file: str, /) -> AsyncIterator[bytes]: ...


WhenReturned = Callable[[Callable[[], None]], bool]
"""Calls back when the thread has returned that a timeout or a shutdown left behind; False when there is none."""


def chunks_of(get_chunk: Callable[[str, int], Awaitable[Chunk | None]]) -> Chunks:
    """The contents of files, by a store's operation."""

    async def chunks(file: str) -> AsyncIterator[bytes]:
        number, is_last = 0, False
        while not is_last:
            chunk = await get_chunk(file, number)
            if chunk is None:
                raise FileLost(f"the content of the file {file} is not in the store: was it restored from a backup?")
            yield chunk.data
            number, is_last = number + 1, chunk.is_last

    return chunks


class GivenFiles:
    """The files of one attempt; all closed with it."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._open: list[Any] = []
        self.ids: list[str] = []

    async def give(self, value: Any) -> Any:
        """The same value, with the file that was uploaded in the place of what was stored of it."""
        if isinstance(value, StoredFile):
            self.ids.append(value.file)
            file: Any = SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115 - it is open for as long as the attempt lasts
            self._open.append(file)
            return give(value, cast("BinaryIO", file), await fill(file, self._chunks(value.file)))
        if type(value) is list and any(isinstance(each, StoredFile) for each in cast("list[Any]", value)):
            return [await self.give(each) for each in cast("list[Any]", value)]
        return cast("Any", value)

    def close(self) -> None:
        """Let go of what they take on the disk, in a thread: it may take its time."""
        loop = asyncio.get_running_loop()
        for file in self._open:
            loop.run_in_executor(None, file.close)


@asynccontextmanager
async def given(
    args: tuple[Any, ...], kwargs: dict[str, Any], chunks: Chunks, when_returned: WhenReturned
) -> AsyncGenerator[tuple[tuple[Any, ...], dict[str, Any], tuple[str, ...]]]:
    """The arguments with their files at hand, and the ids of these. Raises what `chunks` raises.

    A file is not closed under a thread that still reads it.
    """
    files = GivenFiles(chunks)
    try:
        args = tuple([await files.give(value) for value in args])
        kwargs = {name: await files.give(value) for name, value in kwargs.items()}
        yield args, kwargs, tuple(files.ids)
    finally:
        if not when_returned(files.close):
            files.close()


async def fill(file: Any, chunks: AsyncIterator[bytes]) -> int:
    """Write the content to a temporary file, and go to its start; its size."""
    loop = asyncio.get_running_loop()
    size = 0
    async for data in chunks:
        size += len(data)
        await loop.run_in_executor(None, file.write, data)
    file.seek(0)
    return size


# Handed over to a child process: each chunk with its length before it.

END = (0).to_bytes(4, "big")
"""After the last chunk of a file."""

LOST = (2**32 - 1).to_bytes(4, "big")
"""In place of a file that is not in the store."""


def receive(stream: BinaryIO) -> BinaryIO | None:
    """Read one file that is handed over; None for one that is lost. Ends this process when the stream ends before."""
    file: Any = SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115 - open for as long as its process lives
    while (length := stream.read(4)) != END:
        if length == LOST:
            return None
        data = stream.read(int.from_bytes(length, "big"))
        if len(length) < 4 or len(data) < int.from_bytes(length, "big"):
            raise SystemExit(1)
        file.write(data)
    return cast("BinaryIO", file)


def received(files: Mapping[str, BinaryIO | None]) -> Chunks:
    """The contents of files that were handed over."""

    async def chunks(id_: str) -> AsyncIterator[bytes]:
        file = files.get(id_)
        if file is None:
            raise FileLost(f"the content of the file {id_} is not in the store: was it restored from a backup?")
        file.seek(0)
        while data := file.read(IN_MEMORY_BYTES):
            yield data

    return chunks
