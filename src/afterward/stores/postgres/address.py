"""What a URL says of a PostgreSQL store: the server, and the schema that is afterward's own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

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
    _check_place(parts)
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


def _check_place(parts: SplitResult) -> None:
    """A password with a `/` or a `#` in it ends the place too early, and would be shown as a part of the path.

    So the message shows nothing of the URL. Several hosts are tried in turn, each with its port: `a:5432,b:5432`.
    """
    try:
        is_read = all(urlsplit(f"//{host}").port != 0 for host in parts.netloc.rpartition("@")[2].split(","))
    except ValueError:
        is_read = False
    if not is_read or parts.fragment or "@" in parts.path + parts.query:
        raise ConfigurationError(
            "the URL of the PostgreSQL store cannot be read: it is postgresql://user:password@host:5432/database; "
            "write signs such as / # @ : ? in a user or password as % and their code, which is what "
            "urllib.parse.quote(…, safe='') does"
        )
