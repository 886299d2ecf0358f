"""Which sort of session or connection something is, told by its class: none of their packages is imported for that."""

from __future__ import annotations

from afterward.errors import ConfigurationError
from afterward.options import Joinable
from afterward.transactions import drivers, sqlalchemy
from afterward.transactions.host import Host
from afterward.transactions.joined import Transaction


def transaction_of(thing: Joinable, host: Host) -> Transaction:
    """What jobs join in it. Raises `ConfigurationError` for what they cannot join, or a store that cannot be joined."""
    host.joins  # noqa: B018 - it raises where there is none
    if sqlalchemy.is_session(thing):
        return sqlalchemy.transaction_of(thing, host)
    if drivers.is_connection(thing):
        return drivers.transaction_of(thing, host)
    raise ConfigurationError(
        f"a {type(thing).__module__}.{type(thing).__qualname__} is nothing whose transaction a job can join; give a "
        f"session of SQLAlchemy or SQLModel, or a connection of asyncpg or psycopg"
    )
