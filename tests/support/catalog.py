"""What a PostgreSQL store's schema is, told by the server's own catalog.

`python -m tests.support.catalog` writes it down anew: after a change that was meant.
"""

from pathlib import Path

import psycopg

WRITTEN = Path(__file__).with_name("catalog.txt")

_COLUMNS = """
SELECT c.relname, format('column %s: %s%s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
    CASE WHEN l.collname <> 'default' THEN ' COLLATE ' || l.collname ELSE '' END,
    CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
    coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), CASE WHEN a.attidentity <> '' THEN ' IDENTITY' ELSE '' END)
        || CASE WHEN a.attstorage <> t.typstorage THEN ' STORAGE ' || a.attstorage::text ELSE '' END)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'afterward'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
"""

_OTHERS = """
SELECT c.relname, 'option ' || unnest(c.reloptions) FROM pg_class c
    WHERE c.relnamespace = 'afterward'::regnamespace AND c.relkind = 'r'
UNION ALL SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'afterward'
UNION ALL SELECT conrelid::regclass::text, format('constraint %s: %s', conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE connamespace = 'afterward'::regnamespace AND contype <> 'n'
UNION ALL SELECT 'functions', pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'afterward'::regnamespace
UNION ALL SELECT tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger
    WHERE tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'afterward'::regnamespace) AND NOT tgisinternal
"""


def description(url: str) -> str:
    """Each table, its columns, indexes, constraints and options, in an order that says nothing."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(_COLUMNS).fetchall() + connection.execute(_OTHERS).fetchall()
    tables: dict[str, list[str]] = {}
    for table, line in rows:
        tables.setdefault(table.removeprefix("afterward."), []).append(line)
    return "".join(
        f"{table}\n" + "".join(f"    {line}\n" for line in sorted(tables[table])) for table in sorted(tables)
    )


def _write() -> None:
    import asyncio

    from afterward.stores.postgres import PostgresStore
    from servers.postgres import Server

    async def make(url: str) -> None:
        store = PostgresStore(url)
        await store.open()
        await store.close()

    with Server() as server, server.database() as url:
        asyncio.run(make(url))
        WRITTEN.write_text(description(url))


if __name__ == "__main__":
    _write()
