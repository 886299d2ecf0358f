"""The result back end of a Celery app: what it tells of tasks, read as it is kept, and never unpickled."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

_STEP_SECONDS = 4.0
"""How long a step of the network may take, where the settings of the app leave that open."""

_KEY_VALUE, _DATABASE = "key-value", "database"


class Meta(NamedTuple):
    """What is kept of one task. `result`: the JSON of it; None where it is none. `traceback`: as text."""

    state: str
    result: Any = None
    traceback: str = ""
    is_readable: bool = True
    """Is the result JSON?"""


UNREADABLE = Meta("", is_readable=False)
"""Something is kept, in a form that is not read here."""


_silences: WeakKeyDictionary[Any, str | None] = WeakKeyDictionary()


def silence_of(app: Any) -> str | None:
    """Why the result back end of this app tells nothing that could be followed; None where it does.

    The first call imports that back end, which takes its time: it is made by a thread that nobody waits for.
    """
    if app not in _silences:
        _silences[app] = _silence_of(app)
    return _silences[app]


def _silence_of(app: Any) -> str | None:
    kind = _class_of(app)
    if kind is None or kind.__name__ == "DisabledBackend":
        return "its Celery app has no result back end"
    if kind.__name__ == "RPCBackend":
        return "the result back end rpc:// tells whoever has published it alone"
    if _kind_of(kind) is None:
        return f"the result back end {kind.__name__} cannot be read in batches"
    if app.conf.result_serializer != "json":
        return f"results are kept as {app.conf.result_serializer}, and not as JSON"
    return None


def _class_of(app: Any) -> Any:
    from celery.app import backends

    by_url: Any = backends.by_url
    try:
        return by_url(app.backend_cls or app.conf.result_backend, app.loader)[0]
    except Exception:  # noqa: BLE001 - whatever is wrong with the settings of the app
        return None


def _kind_of(kind: Any) -> str | None:
    for one in kind.__mro__:
        if one.__name__ == "BaseKeyValueStoreBackend":
            return _KEY_VALUE
        if one.__name__ == "DatabaseBackend":
            return _DATABASE
    return None


class Results:
    """Reads what the back end of an app keeps. It blocks, and is for one thread, as the back end is itself."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._thread = threading.get_ident()
        self._backend: Any = app.backend
        parameters = getattr(self._backend, "connparams", None)
        if isinstance(parameters, dict) and not app.conf.get("result_backend_thread_safe"):
            said = cast("dict[str, Any]", parameters)
            for name in ("socket_timeout", "socket_connect_timeout"):
                said[name] = min(_STEP_SECONDS, said.get(name) or _STEP_SECONDS)

    def read(self, ids: Sequence[str]) -> list[Meta | None]:
        """Of each task what is kept; None where nothing is. Raises whatever the back end does."""
        if not ids:
            return []
        if _kind_of(type(self._backend)) == _DATABASE:
            found = self._rows(ids)
            return [found.get(one) for one in ids]
        keys = [self._backend.get_key_for_task(one) for one in ids]
        return [None if value is None else meta_of(value) for value in self._backend.mget(keys)]

    def _rows(self, ids: Sequence[str]) -> dict[str, Meta]:
        from sqlalchemy import select

        columns = self._backend.task_cls.__table__.c
        wanted = (columns.task_id, columns.status, columns.traceback, columns.result)
        is_pickled = type(columns.result.type).__name__ == "PickleType"
        with self._backend.ResultSession() as session:
            rows = session.execute(select(*wanted[: 3 if is_pickled else 4]).where(columns.task_id.in_(ids))).all()
        return {row[0]: _meta_of_row(row[1], row[2], None if is_pickled else row[3]) for row in rows}


def meta_of(raw: Any) -> Meta:
    """What a back end keeps of one task, from its JSON; `UNREADABLE` for anything else, such as a pickle."""
    text = raw.encode() if isinstance(raw, str) else bytes(raw)
    try:
        kept = json.loads(text) if text.startswith(b"{") else None
    except ValueError:
        kept = None
    if not isinstance(kept, dict):
        return UNREADABLE
    said = cast("dict[str, Any]", kept)
    return Meta(str(said.get("status") or ""), said.get("result"), str(said.get("traceback") or ""))


def _meta_of_row(state: Any, traceback: Any, result: Any) -> Meta:
    try:
        value = json.loads(result) if result is not None else None
    except (ValueError, TypeError):
        return Meta(str(state), None, str(traceback or ""), is_readable=False)
    return Meta(str(state), value, str(traceback or ""), is_readable=result is not None)
