"""How much memory child processes take, with all that they have started: looked at again and again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager

from pydantic import ByteSize

from afterward.errors import MemoryExceeded
from afterward.observe import emit

LOOK_SECONDS = 0.1
"""Between two looks."""


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
        families = _Families()
        while self._watched:
            try:
                self._tell(await asyncio.to_thread(families.taken_by, [*self._watched]))
            except Exception as error:  # noqa: BLE001 - whatever a system answers: the next look may be luckier
                emit(logging.WARNING, "worker.memory_unseen", error)
            await asyncio.sleep(LOOK_SECONDS)
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


class _Families:
    """Who has started whom. Of each process that is asked once: it takes most of the time of a look."""

    def __init__(self) -> None:
        self._parents: dict[int, int] = {}

    def taken_by(self, roots: Iterable[int]) -> dict[int, int]:
        """Resident bytes of each of these processes and all their descendants.

        What several of them share counts for each.
        """
        import psutil

        self._parents = {pid: self._parents[pid] if pid in self._parents else _parent_of(pid) for pid in psutil.pids()}
        children: dict[int, list[int]] = {}
        for pid, parent in self._parents.items():
            children.setdefault(parent, []).append(pid)
        return {root: sum(map(taken_alone, _family(root, children))) for root in roots}


def _family(root: int, children: Mapping[int, Iterable[int]]) -> Iterable[int]:
    family, found = [root], {root}
    for pid in family:
        new = [child for child in children.get(pid, ()) if child not in found]
        family += new
        found.update(new)
    return family


def _parent_of(pid: int) -> int:
    """0 of one that is gone, or of which nobody is told."""
    import psutil

    try:
        return psutil.Process(pid).ppid()
    except psutil.Error:
        return 0


def taken_alone(pid: int) -> int:
    """Resident bytes of one process; 0 of one that is gone."""
    import psutil

    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0


def exceeded(cap: int, seen: int) -> MemoryExceeded:
    """What is recorded of an attempt that was ended for it."""
    return MemoryExceeded(
        f"its process took {_text(seen)} of memory, and its task may take {_text(cap)}, so it was killed; let it take "
        f"less at a time, or give it more: @tasks.task(memory=…)"
    )


def _text(size: int) -> str:
    return ByteSize(size).human_readable(decimal=True)
