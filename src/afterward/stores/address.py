"""The store that a URL names."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from afterward.errors import ConfigurationError
from afterward.stores.base import Store
from afterward.stores.sqlite import SQLiteStore
from afterward.text import is_storable

DEFAULT_URL = "sqlite:///afterward.db"


def store_of(url: str) -> Store:
    """The store that a URL names. Raises `ConfigurationError` for one that names none."""
    parts = urlsplit(url)
    path = unquote(parts.path[1:])
    if parts.scheme == "sqlite" and not parts.netloc and path and not parts.query:
        if not is_storable(path):
            raise ConfigurationError(f"{url!r} names no store: no file can have such a name; name another")
        return SQLiteStore(path)
    raise ConfigurationError(
        f"{parts.scheme or url!r} names no store of this version; use sqlite:///relative.db or sqlite:////absolute/path.db"
    )
