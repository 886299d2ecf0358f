"""Jobs in one SQLite file, for the processes of one machine."""

from afterward.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
