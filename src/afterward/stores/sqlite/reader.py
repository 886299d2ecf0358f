"""Looking at jobs: on a connection and in a thread of its own, so that a long look never holds up a write."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import apsw

from afterward.errors import StoreUnavailable

T = TypeVar("T")

Look = Callable[[apsw.Connection], Any]
_Work = tuple[Look, asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class Reader:
    """Runs looks one after the other, from the first on. Each sees what was committed before it began."""

    def __init__(self, path: Path, patience: float) -> None:
        self._path = path
        self._patience = patience
        self._mutex = threading.Lock()
        self._closed = False
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def look(self, look: Callable[[apsw.Connection], T]) -> asyncio.Future[T]:
        """Ask for a look, from a running event loop; await the answer."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._mutex:
            if self._closed:
                raise StoreUnavailable(f"the store {self._path} is closed")
            self._work.put((look, loop, future))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="afterward-sqlite-reader", daemon=True)
                self._thread.start()
        return future

    def close(self) -> None:
        """End after the looks asked for so far. Blocks; idempotent."""
        with self._mutex:
            if not self._closed:
                self._closed = True
                self._work.put(None)
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        connection: apsw.Connection | None = None
        while (work := self._work.get()) is not None:
            look, loop, future = work
            answer, error = None, None
            try:
                connection = connection or self._connect()
                answer = look(connection)
            except apsw.Error as refused:
                error = StoreUnavailable(
                    f"the store {self._path} could not be read: {type(refused).__name__}: {refused}"
                )
                error.__cause__ = refused
            except Exception as raised:  # noqa: BLE001 - it is raised where the look was asked for
                error = raised
            with contextlib.suppress(RuntimeError):  # that loop is closed: nobody is left to be answered
                loop.call_soon_threadsafe(_answer, future, answer, error)
        if connection is not None:
            connection.close()

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(int(self._patience * 1000))
        connection.pragma("query_only", True)
        return connection


def _answer(future: asyncio.Future[Any], answer: Any, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)
