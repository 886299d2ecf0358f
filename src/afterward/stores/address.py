"""The store that a URL names."""

from __future__ import annotations

from importlib.util import find_spec
from urllib.parse import unquote, urlsplit

from afterward.errors import ConfigurationError
from afterward.stores.base import Store
from afterward.stores.sqlite import SQLiteStore
from afterward.text import is_storable

DEFAULT_URL = "sqlite:///afterward.db"

_POSTGRESQL = frozenset({"postgresql", "postgres", "postgresql+asyncpg", "postgresql+psycopg"})
"""How URLs of PostgreSQL begin; the last two are SQLAlchemy's."""


def store_of(url: str) -> Store:
    """The store that a URL names. Raises `ConfigurationError` for one that names none."""
    parts = urlsplit(url)
    if parts.scheme in _POSTGRESQL:
        return _postgres_store(url)
    path = unquote(parts.path[1:])
    if parts.scheme == "sqlite" and not parts.netloc and path and not parts.query:
        if not is_storable(path):
            raise ConfigurationError(f"{url!r} names no store: no file can have such a name; name another")
        return SQLiteStore(path)
    raise ConfigurationError(
        f"{parts.scheme or url!r} names no store of this version; use sqlite:///relative.db, "
        f"sqlite:////absolute/path.db or postgresql://user:password@host/database"
    )


def _postgres_store(url: str) -> Store:
    if find_spec("asyncpg") is None:
        raise ConfigurationError('a PostgreSQL store needs its driver: pip install "afterward[postgres]"')
    from afterward.stores.postgres import PostgresStore

    return PostgresStore(url)
