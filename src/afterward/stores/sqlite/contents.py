"""The contents of files, in chunks: stored, linked to their jobs, read, and freed a few chunks at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import apsw

from afterward.faults import crash_point
from afterward.job import NewFile
from afterward.stores.base import Chunk
from afterward.stores.sql import load_queries
from afterward.text import is_storable

_Q = load_queries("afterward.stores.sqlite")


def put_chunk(  # noqa: PLR0917 - as the operation has them
    connection: apsw.Connection, file: str, number: int, data: bytes, process: str, is_last: bool
) -> bool:
    """Store one chunk in the name of a process; False when that has no liveness row."""
    if number == 0:
        connection.execute(_Q["begin_file"], (file, process))
    if connection.execute(_Q["put_chunk"], (file, number, data, process)).get is None:
        return False
    if is_last:
        connection.execute(_Q["end_file"], (file, number + 1))
    return True


def are_whole(connection: apsw.Connection, files: Sequence[NewFile]) -> bool:
    """Is the content of all of them there, and no job's yet?"""
    return all(connection.execute(_Q["file_is_whole"], (file.id,)).get for file in files)


def link(connection: apsw.Connection, files: Sequence[NewFile], job: str) -> None:
    """They are this job's from here on."""
    connection.executemany(_Q["link_file"], [(file.id, job) for file in files])


def unlink(connection: apsw.Connection, files: Iterable[str], job: str) -> None:
    """This job does not need them any more."""
    connection.executemany(_Q["unlink_file"], [(file, job) for file in files])


def loose(connection: apsw.Connection, process: str) -> frozenset[str]:
    """Those that are in the name of a process, and no job's."""
    return frozenset(file for (file,) in connection.execute(_Q["loose_files"], (process,)))


def drop(connection: apsw.Connection, process: str, files: Iterable[str]) -> None:
    """They are nobody's, if they still are in the name of this process."""
    connection.executemany(_Q["drop_file"], [(file, process) for file in files])


def sweep(connection: apsw.Connection, limit: int) -> int:
    """Free at most so many chunks of files that nobody wants; how many they were."""
    freed = 0
    while freed < limit and (seq := connection.execute(_Q["unwanted_file"]).get) is not None:
        connection.execute(_Q["open_up_file"], (seq,))
        chunks = len(connection.execute(_Q["free_chunks"], (seq, limit - freed)).fetchall())
        freed += chunks
        crash_point("in_sweep")
        if freed < limit or not chunks:
            connection.execute(_Q["free_file"], (seq,))
    return freed


def get_chunk(connection: apsw.Connection, file: str, number: int) -> Chunk | None:
    """One chunk of a file that is whole, or None."""
    if not is_storable(file):
        return None
    row = connection.execute(_Q["get_chunk"], (file, number)).fetchone()
    return None if row is None else Chunk(bytes(row[0]), bool(row[1]))
