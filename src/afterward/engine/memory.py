"""How much memory child processes take, with all that they have started: looked at again and again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager

from pydantic import ByteSize

from afterward.errors import MemoryExceeded
from afterward.observe import emit

LOOK_SECONDS = 0.1
"""From one look to the next, at least."""

_PART_OF_TIME = 0.05
"""What looking may take of the time of one processor: on a machine with many processes it is done less often."""


class MemoryWatch:
    """Looks while there is anybody to look at, in a thread."""

    def __init__(self) -> None:
        self._watched: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def over(self, pid: int, cap: int | None, tell: Callable[[int], None]) -> Generator[None]:
        """While the block lasts, `tell` is called with what is seen of this process once that is more than `cap`."""
        if cap is None:
            yield
            return
        self._watched[pid] = cap, tell
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="afterward-memory")
        try:
            yield
        finally:
            self._watched.pop(pid, None)

    async def _look(self) -> None:
        while self._watched:
            began = time.monotonic()
            try:
                self._tell(await asyncio.to_thread(taken_by, [*self._watched]))
            except Exception as error:  # noqa: BLE001 - whatever a system answers: the next look may be luckier
                emit(logging.WARNING, "worker.memory_unseen", error)
            took = time.monotonic() - began
            await asyncio.sleep(max(LOOK_SECONDS - took, took / _PART_OF_TIME))
        self._looking = None

    def _tell(self, taken: Mapping[int, int]) -> None:
        for pid, size in taken.items():
            cap, tell = self._watched.get(pid, (size, None))
            if tell is not None and size > cap:
                del self._watched[pid]
                tell(size)

    def stop(self) -> None:
        """Look no more. Lawful twice."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None


def taken_by(roots: Iterable[int]) -> Mapping[int, int]:
    """Resident bytes of each of these processes and all their descendants; nothing of one that is gone.

    What several of them share counts for each.
    """
    import psutil

    sizes: dict[int, int] = {}
    children: dict[int, list[psutil.Process]] = {}
    for process in psutil.process_iter(["ppid"]):
        children.setdefault(process.info["ppid"], []).append(process)
    for root in roots:
        try:
            family = [psutil.Process(root)]
        except psutil.NoSuchProcess:
            continue
        for process in family:
            family += children.get(process.pid, [])
        sizes[root] = sum(_taken(process) for process in family)
    return sizes


def taken_alone(pid: int) -> int:
    """Resident bytes of one process; 0 of one that is gone."""
    import psutil

    try:
        return _taken(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return 0


def _taken(process: object) -> int:
    import psutil

    assert isinstance(process, psutil.Process)  # noqa: S101
    try:
        return process.memory_info().rss
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def exceeded(cap: int, seen: int) -> MemoryExceeded:
    """What is recorded of an attempt that was ended for it."""
    return MemoryExceeded(
        f"its process took {_text(seen)} of memory, and its task may take {_text(cap)}, so it was killed; let it take "
        f"less at a time, or give it more: @tasks.task(memory=…)"
    )


def _text(size: int) -> str:
    return ByteSize(size).human_readable(decimal=True)
