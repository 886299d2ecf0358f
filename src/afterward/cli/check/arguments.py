"""Which values cannot be stored as the argument of a task, and what to do in their place."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from afterward.cli.check.evaluation import Evaluator
from afterward.cli.check.libraries import PART_OF_REQUEST
from afterward.cli.check.values import (
    Class,
    Data,
    Durable,
    External,
    Function,
    GeneratorObject,
    Instance,
    Lambda,
    Maker,
    Member,
    Partial,
    Several,
    Value,
)


@dataclass(frozen=True, slots=True)
class Culprit:
    """What cannot be stored: its rule, what it is, and the mend."""

    rule: str
    what: str
    mend: str


UPLOAD = Culprit(
    "upload-argument", "an UploadFile", "annotate the task's parameter UploadFile: only then is its content stored"
)
_REQUEST = Culprit(
    "request-argument", "the request", "pass what the task needs of it (its path, a header, the parsed body)"
)
_PART_OF_REQUEST = Culprit(
    "request-argument", "an object of the request's", "pass what the task needs of it, as text or as a dict"
)
_RESPONSE = Culprit("request-argument", "a response", "pass the data that it is made of")
_SESSION = Culprit(
    "session-argument", "a database session or connection", "pass the primary key, and open a session inside the task"
)
_ROW = Culprit("object-argument", "a row of the database", "pass its primary key, and load it inside the task")
_FILE = Culprit("file-argument", "an open file", "pass where it is kept, and open it inside the task")
_GENERATOR = Culprit("generator-argument", "a generator", "pass a list")
_FUNCTION = Culprit("function-argument", "a function", "pass data, and choose the function inside the task")
_LAMBDA = Culprit("function-argument", "a lambda", "pass data, and choose the function inside the task")
_LOCK = Culprit("lock-argument", "a lock", "what only this process knows does not outlive it: make it inside the task")
_LOGGER = Culprit("logger-argument", "a logger", "get it inside the task, or keep it at the module's level")
_SELF = Culprit("self-argument", "self", "pass the data that the task needs of it")
_OBJECT = Culprit(
    "object-argument", "an object of a plain class", "pass data (a Pydantic model, a dataclass), or make it in the task"
)

_OF_WEB = {
    "HTTPConnection": _REQUEST,
    "Request": _REQUEST,
    "UploadFile": UPLOAD,
    "WebSocket": _REQUEST,
    PART_OF_REQUEST.name: _PART_OF_REQUEST,
}
_DATABASES = frozenset(
    ("aiomysql", "aiopg", "aiosqlite", "apsw", "asyncpg", "databases", "duckdb", "motor", "MySQLdb", "odmantic",
     "oracledb", "peewee", "psycopg", "psycopg2", "psycopg_pool", "pymongo", "pymysql", "pyodbc", "redis", "sqlalchemy",
     "sqlite3", "sqlmodel", "tortoise", "valkey")
)  # fmt: skip
_SESSIONS = frozenset(("AsyncConnection", "AsyncSession", "Connection", "Session"))
_OF_DATABASES = _SESSIONS | {
    "AsyncClient", "AsyncConnectionPool", "AsyncCursor", "AsyncEngine", "AsyncIOMotorClient", "AsyncIOMotorDatabase",
    "AsyncMongoClient", "AsyncRedis", "ClientConnection", "ConnectionPool", "Cursor", "Database", "Engine",
    "MongoClient", "Pool", "Redis", "StrictRedis", "async_scoped_session", "async_sessionmaker", "scoped_session",
    "sessionmaker",
}  # fmt: skip
_LOCKS = {
    "threading": {"Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore", "Thread", "local"},
    "asyncio": {"BoundedSemaphore", "Condition", "Event", "Future", "Lock", "Queue", "Semaphore", "Task", "TaskGroup"},
    "multiprocessing": {"Condition", "Event", "Lock", "Manager", "Pool", "Process", "Queue", "RLock", "Semaphore"},
    "anyio": {"CapacityLimiter", "Condition", "Event", "Lock", "Semaphore"},
    "queue": {"LifoQueue", "PriorityQueue", "Queue", "SimpleQueue"},
}
_FILES = frozenset(
    ("BinaryIO", "BufferedReader", "BufferedWriter", "BytesIO", "IO", "IOBase", "NamedTemporaryFile", "RawIOBase",
     "SpooledTemporaryFile", "StringIO", "TemporaryFile", "TextIO", "TextIOWrapper")
)  # fmt: skip
_LOGGERS = frozenset(("BoundLogger", "FilteringBoundLogger", "Logger", "LoggerAdapter"))
_LOGGING = frozenset(("logging", "loguru", "structlog"))


class Arguments:
    """Looks for what cannot be stored in the values of arguments."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    def culprit(self, value: Value) -> Culprit | None:  # noqa: PLR0911 - one answer for each kind of value
        """Why a value can never be stored; None when it can be, or when it cannot be told."""
        match value:
            case Lambda():
                return _LAMBDA
            case GeneratorObject():
                return _GENERATOR
            case Function() | Durable() | Partial() | Maker() | Member(function=Function()):
                return _FUNCTION
            case Data(parts):
                return next((found for part in parts if (found := self.culprit(part)) is not None), None)
            case Several(values):
                found = [self.culprit(one) for one in values]
                return None if None in found else found[0]
            case External("loguru.logger"):
                return _LOGGER
            case Instance():
                return self._of_instance(value)
            case _:
                return None

    def _of_instance(self, value: Instance) -> Culprit | None:
        for kind in self._evaluator.classes.externals(value.of):
            if (found := _of_library(kind)) is not None:
                return found
        if isinstance(value.of, Class) and self._is_plain(value.of):
            return _SELF if value.is_self else _OBJECT
        return None

    def _is_plain(self, kind: Class) -> bool:
        """Has neither it nor any of its ancestors been told how to be stored?"""
        for ancestor in self._evaluator.classes.ancestors(kind):
            if isinstance(ancestor, External) and ancestor.path == "builtins.object":
                continue
            if not isinstance(ancestor, Class) or not _is_plain(ancestor.node):
                return False
        return True


def _is_plain(node: ast.ClassDef) -> bool:
    methods = (part.name for part in node.body if isinstance(part, ast.FunctionDef))
    return not (node.decorator_list or node.keywords or any("pydantic" in name for name in methods))


def _of_library(kind: External) -> Culprit | None:
    if kind.root in {"fastapi", "starlette"}:
        return _OF_WEB.get(kind.name, _RESPONSE if kind.name.endswith("Response") else None)
    if kind.path in {"sqlalchemy.orm.DeclarativeBase", "sqlalchemy.orm.DeclarativeBaseNoMeta"}:
        return _ROW
    if kind.name in _SESSIONS or (kind.root in _DATABASES and kind.name in _OF_DATABASES):
        return _SESSION
    return _of_standard_library(kind)


def _of_standard_library(kind: External) -> Culprit | None:
    if kind.root in {"io", "tempfile", "typing"} and kind.name in _FILES:
        return _FILE
    if kind.name in _LOCKS.get(kind.root, ()):
        return _LOCK
    if kind.root in _LOGGING and kind.name in _LOGGERS:
        return _LOGGER
    return None
