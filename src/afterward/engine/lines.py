"""The lines that running jobs write to the standard `logging`, told from all others by their context."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager

from afterward.context import VOICE
from afterward.job import EventKind
from afterward.text import storable

MAX_LINE = 4_000
"""So many characters of a line are kept; of its traceback, the last of so many."""

MAX_NAME = 200
"""So many characters of the name of its logger are kept, and of its level."""

_OURS = "afterward"
_FORMATTER = logging.Formatter()


class Lines(logging.Handler):
    """Gives each line to the attempt that writes it. Lines of this library's own are no job's.

    It has no lock: a voice has one of its own, and who holds that may write to the log.
    """

    def createLock(self) -> None:  # noqa: N802 - as the base has it
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        voice = VOICE.get(None)
        if (
            voice is not None
            and voice.takes_line(record.levelno)
            and record.name != _OURS
            and not record.name.startswith(f"{_OURS}.")
        ):
            voice.say(EventKind.log, _data_of(record))
        if _is_alone(record, self):
            _to_last_resort(record)


def _data_of(record: logging.LogRecord) -> str:
    level, logger = storable(record.levelname)[:MAX_NAME], storable(record.name)[:MAX_NAME]
    said = {"level": level, "logger": logger, "message": _message_of(record)}
    return json.dumps(said, ensure_ascii=False)


def _message_of(record: logging.LogRecord) -> str:
    try:
        lines = [storable(record.getMessage())[:MAX_LINE]]
        if record.exc_info:
            lines.append(storable(_FORMATTER.formatException(record.exc_info))[-MAX_LINE:])
        if record.stack_info:
            lines.append(storable(record.stack_info)[-MAX_LINE:])
    except Exception as error:  # noqa: BLE001 - whatever its arguments raise as they become text; its other handlers tell
        lines = [f"<its text could not be had: {type(error).__name__}>"]
    return "\n".join(lines)


def _is_alone(record: logging.LogRecord, handler: logging.Handler) -> bool:
    """Has this record no other handler? Then Python would print it, were it not for this one."""
    if len(logging.root.handlers) > 1:
        return False
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None:
        if any(other is not handler for other in logger.handlers):
            return False
        logger = logger.parent if logger.propagate else None
    return True


def _to_last_resort(record: logging.LogRecord) -> None:
    last = logging.lastResort
    if last is not None and record.levelno >= last.level:
        last.handle(record)


_LINES = Lines()
_MUTEX = threading.Lock()
_captors: set[object] = set()
"""Those who want it, in this process: one for each worker."""


@contextmanager
def captured() -> Generator[None]:
    """While the block lasts, lines that are written by jobs are theirs."""
    captor = object()
    with _MUTEX:
        _captors.add(captor)
        logging.root.addHandler(_LINES)  # which does nothing where it is there
    try:
        yield
    finally:
        with _MUTEX:
            _captors.discard(captor)
            if not _captors:
                logging.root.removeHandler(_LINES)
