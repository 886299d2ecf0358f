"""What a URL says of a PostgreSQL store: the server, and the schema that is afterward's own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from afterward.errors import ConfigurationError

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_YES = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a store is. `dsn`: the server and database, with the password. `location`: the same for people, without it.

    `pooled`: a pooler in transaction mode stands between, so that a session is never this process's own.
    """

    dsn: str
    location: str
    schema: str = "afterward"
    pooled: bool = False


def address_of(url: str) -> Address:
    """The address that a URL names: `postgresql://user:password@host/database?schema=afterward&pgbouncer=true`.

    All other options are the driver's, as libpq knows them: `sslmode=require`. Raises `ConfigurationError`.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema = options.pop("schema", "afterward")
    if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
        raise ConfigurationError(
            f"schema={schema!r} names no schema; use small letters, digits and underscores, as in schema=afterward"
        )
    said = options.pop("pgbouncer", "false").lower()
    if said not in _YES:
        raise ConfigurationError(f"pgbouncer={said!r} says nothing; use pgbouncer=true or pgbouncer=false")
    dsn = urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(options), ""))
    host = parts.netloc.rpartition("@")[2] or "localhost"
    location = f"postgresql://{host}{parts.path}" + ("" if schema == "afterward" else f"?schema={schema}")
    return Address(dsn, location, schema, _YES[said])
