"""Jobs in a PostgreSQL database, for many processes on many servers."""

from afterward.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
