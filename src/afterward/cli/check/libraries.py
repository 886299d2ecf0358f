"""What is known of libraries: what their functions return, and which of their objects cannot be stored."""

from __future__ import annotations

from afterward.cli.check.values import Durable, External, Instance, Member, Value

SESSION = External("sqlalchemy.orm.Session")
CONNECTION = External("sqlalchemy.Connection")
FILE = External("io.IOBase")
ORM_BASE = External("sqlalchemy.orm.DeclarativeBase")
LOGGER = External("logging.Logger")
PART_OF_REQUEST = External("starlette.requests.<part>")
CELERY_TASK = External("celery.Task")
SIGNATURE = External("celery.Signature")

_WEB = frozenset(("fastapi", "starlette"))

RETURNED = {
    "builtins.open": FILE,
    "io.open": FILE,
    "os.fdopen": FILE,
    "codecs.open": FILE,
    "tempfile.mkstemp": External("builtins.tuple"),
    "logging.getLogger": LOGGER,
    "structlog.get_logger": LOGGER,
    "structlog.stdlib.get_logger": LOGGER,
    "sqlalchemy.create_engine": External("sqlalchemy.Engine"),
    "sqlalchemy.ext.asyncio.create_async_engine": External("sqlalchemy.ext.asyncio.AsyncEngine"),
    "sqlmodel.create_engine": External("sqlalchemy.Engine"),
    "sqlalchemy.orm.sessionmaker": External("sqlalchemy.orm.sessionmaker"),
    "sqlalchemy.ext.asyncio.async_sessionmaker": External("sqlalchemy.orm.sessionmaker"),
    "sqlalchemy.orm.scoped_session": External("sqlalchemy.orm.sessionmaker"),
    "sqlalchemy.ext.asyncio.async_scoped_session": External("sqlalchemy.orm.sessionmaker"),
    "sqlite3.connect": External("sqlite3.Connection"),
    "asyncpg.connect": External("asyncpg.Connection"),
    "psycopg.connect": External("psycopg.Connection"),
    "psycopg2.connect": External("psycopg2.Connection"),
}
"""The class of what a function gives; a name with a capital letter is taken for a class without being listed."""

CLASSES = {
    "sqlalchemy.orm.declarative_base": ORM_BASE,
    "sqlalchemy.ext.declarative.declarative_base": ORM_BASE,
}
"""Functions that give a class."""

RETURNED_BY_METHOD = {
    ("sessionmaker", "begin"): SESSION,
    ("sessionmaker", "__call__"): SESSION,
    ("Engine", "connect"): CONNECTION,
    ("Engine", "begin"): CONNECTION,
    ("AsyncEngine", "connect"): CONNECTION,
    ("AsyncEngine", "begin"): CONNECTION,
    ("Path", "open"): FILE,
    ("Afterward", "celery_task"): External("afterward.Task"),
    ("Task", "s"): SIGNATURE,
    ("Task", "si"): SIGNATURE,
    ("Task", "signature"): SIGNATURE,
    ("Signature", "set"): SIGNATURE,
}
"""The class of what a method gives, by the names of its class and itself."""

ATTRIBUTES = {
    ("UploadFile", "file"): FILE,
    **dict.fromkeys(
        [(name, attribute) for name in ("Request", "WebSocket", "HTTPConnection")
         for attribute in ("app", "base_url", "headers", "query_params", "state", "url")],
        PART_OF_REQUEST,
    ),
}  # fmt: skip
"""Attributes of which it is known that they cannot be stored."""

ANYTHING = frozenset(
    ("Any", "Callable", "Protocol", "Self", "TypeVar", "ParamSpec", "NewType", "Type", "Awaitable", "Coroutine",
     "Hashable", "object", "type", "callable")
)  # fmt: skip
"""What an annotation can say without saying much."""

COLLECTIONS = frozenset(
    ("list", "tuple", "set", "frozenset", "dict", "List", "Tuple", "Set", "FrozenSet", "Dict", "Sequence", "Iterable",
     "Collection", "Mapping", "MutableMapping", "MutableSequence", "Deque", "deque")
)  # fmt: skip
ITERATORS = frozenset(("Generator", "AsyncGenerator", "Iterator", "AsyncIterator", "Iterable", "AsyncIterable"))
TYPING = frozenset(("typing", "typing_extensions", "collections", "builtins", "types"))


def is_of_web(value: External, *names: str) -> bool:
    """Is it FastAPI's or Starlette's, and has it one of these names?"""
    return value.root in _WEB and value.name in names


def is_ours(value: External, *names: str) -> bool:
    """Is it afterward's, and has it one of these names?"""
    return value.root == "afterward" and value.name in names


def makes_celery_tasks(decorator: Value) -> bool:
    """Is it `app.task` of a Celery app, or `shared_task`?"""
    match decorator:
        case Member(owner=Instance(of=External() as app), name="task"):
            return app.root == "celery"
        case External(path):
            return path == "celery.shared_task"
        case _:
            return False


def is_task(value: Value) -> bool:
    """Is it durable when it is added, be its function known or not?"""
    if not isinstance(value, Instance) or not isinstance(value.of, External):
        return isinstance(value, Durable)
    return is_ours(value.of, "Task") or value.of in {CELERY_TASK, SIGNATURE}
