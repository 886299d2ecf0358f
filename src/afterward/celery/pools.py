"""The pools of Celery workers: what each is to the functions that run in it, and when its processes begin and end."""

from __future__ import annotations

import os
import threading
from typing import Any

from billiard import process
from celery import signals
from kombu.utils.compat import detect_environment

from afterward.celery.host import Host

_mutex = threading.Lock()
_host: Host | None = None
_slots: int | None = None
"""How many tasks the pool of this process runs at once, where they run in this process."""


def host() -> Host:
    """That of this process; of a process that was forked, its own."""
    global _host  # noqa: PLW0603 - there is one, as there is one process
    with _mutex:
        if _host is None or _host.pid != os.getpid():
            is_alone = is_child()
            _host = Host(slots=1 if is_alone else _slots or 1, is_alone=is_alone)
            _host.start()
        return _host


def refusal() -> str | None:
    """Why no function of ours can run in this pool, if it cannot: in one of greenlets, nothing runs beside another."""
    kind = detect_environment()
    if kind == "default":
        return None
    return f"a pool of {kind} has no threads, and an event loop needs one; start it with --pool prefork or threads"


def is_run_here() -> bool:
    """Does this process run what its messages say, and not some that it forks?"""
    return _slots is not None or is_child()


def is_child() -> bool:
    """Is this a child of the prefork pool, which runs one task at a time?"""
    return bool(process.current_process().daemon)


def hear_of_pool(worker: Any) -> None:
    """A worker has begun, in this process."""
    global _slots  # noqa: PLW0603 - as above
    pool = worker.pool_cls.__module__.rpartition(".")[2]
    if refusal() is None and pool != "prefork":
        _slots = 1 if pool == "solo" else int(worker.concurrency)


@signals.worker_process_shutdown.connect
@signals.worker_shutdown.connect
def _leave(**_: Any) -> None:
    """The pool's process ends, or all of them do."""
    if _host is not None and _host.pid == os.getpid():
        _host.stop()
