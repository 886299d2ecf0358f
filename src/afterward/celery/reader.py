"""Reading Celery's result back end, from a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import queue
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from afterward.celery.app import without_password
from afterward.celery.backend import Meta, Results
from afterward.observe import emit

LONGEST_SECONDS = 10.0
"""In so much time there is an answer, whatever the back end does."""


class ResultsUnreadable(Exception):
    """The result back end cannot be read, or not in time."""


class _Request(NamedTuple):
    ids: Sequence[str]
    answer: concurrent.futures.Future[list[Meta | None]]


class Reader:
    """Reads what is kept of tasks. One read is under way at a time; a thread that hangs is waited for, and no other."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._under_way: concurrent.futures.Future[list[Meta | None]] | None = None
        self._results: Results | None = None
        self._is_stopped = False
        self.trouble = ""
        """Why the back end cannot be read, while it cannot; without its password."""

    def start(self) -> None:
        """Be ready. Nothing is connected before the first read."""
        self._thread = threading.Thread(target=self._run, name="afterward-results", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read nothing more. Who waits for a read is told so; one that hangs is left to end by itself."""
        self._is_stopped = True
        self._requests.put(None)
        if self._under_way is not None:
            _settle(self._under_way, ResultsUnreadable("it is not read here any more"))

    async def read(self, ids: Sequence[str]) -> list[Meta | None]:
        """Of each task what is kept; None where nothing is. Raises `ResultsUnreadable`."""
        if self._is_stopped:
            raise ResultsUnreadable("it is not read here any more")
        if self._under_way is not None and not self._under_way.done():
            raise ResultsUnreadable(self._tell("it does not answer"))
        request: concurrent.futures.Future[list[Meta | None]] = concurrent.futures.Future()
        self._under_way = request
        self._requests.put(_Request(ids, request))
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                metas = await asyncio.shield(asyncio.wrap_future(request))
        except TimeoutError:
            raise ResultsUnreadable(self._tell("it does not answer")) from None
        except ResultsUnreadable:
            raise
        except Exception as error:
            raise ResultsUnreadable(self._tell(f"{type(error).__name__}: {error}")) from error
        self._recover()
        return metas

    def _tell(self, reason: str) -> str:
        before, self.trouble = self.trouble, _without_passwords(self._app, reason)
        if not before:
            emit(logging.WARNING, "celery.results_unreadable", reason=self.trouble)
        return self.trouble

    def _recover(self) -> None:
        if self.trouble:
            self.trouble = ""
            emit(logging.INFO, "celery.results_read")

    # in the thread

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            try:
                if self._results is None:
                    self._results = Results(self._app)
                _settle(request.answer, self._results.read(request.ids))
            except Exception as error:  # noqa: BLE001 - whatever the back end raises, to be raised where it was asked
                self._results = None
                _settle(request.answer, error)


def _settle(answer: concurrent.futures.Future[list[Meta | None]], said: list[Meta | None] | Exception) -> None:
    """Give an answer, unless there is one."""
    with contextlib.suppress(concurrent.futures.InvalidStateError):
        answer.set_exception(said) if isinstance(said, Exception) else answer.set_result(said)


def _without_passwords(app: Any, text: str) -> str:
    """Those of the broker and of the back end, which may be another."""
    try:
        password = urlsplit(str(app.conf.result_backend)).password
    except ValueError:
        password = None
    for secret in {password, unquote(password)} if password else ():
        text = text.replace(secret, "**")
    return without_password(app, text)
