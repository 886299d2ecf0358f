"""`afterward migrate`: stores are brought up to date before the app is started that works with them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from afterward.cli.exits import DONE, FAILURE
from afterward.cli.reading import url_or_default
from afterward.cli.target import load
from afterward.errors import ConfigurationError
from afterward.stores.address import store_of
from afterward.stores.base import Store


def migrate(target: str | None, url: str | None, *, only_check: bool) -> int:
    """Bring the stores of a program up to date, or the one of the URL, or say whether they are; the exit code."""
    if target is not None and url is not None:
        raise ConfigurationError(f"{target} says itself where its store is; leave out --store, or {target}")
    stores = [store_of(url_or_default(url))] if target is None else _stores_of(target)
    return asyncio.run(_see_to_all(stores, only_check=only_check))


def _stores_of(target: str) -> Sequence[Store]:
    return list({afterward.store.location: afterward.store for afterward in load(target).afterwards}.values())


async def _see_to_all(stores: Iterable[Store], *, only_check: bool) -> int:
    see_to = _check if only_check else _bring_up_to_date
    return max([await see_to(store) for store in stores])


async def _check(store: Store) -> int:
    schema = await store.schema()
    if not schema.found:
        print(f"{store.location}: there is no store")
        return FAILURE
    if schema.found < schema.newest:
        print(f"{store.location}: schema {schema.found}; this version of afterward works with {schema.newest}")
        return FAILURE
    await _open_and_close(store, may_migrate=False)
    print(f"{store.location}: schema {schema.found}, up to date")
    return DONE


async def _bring_up_to_date(store: Store) -> int:
    before = await store.schema()
    await _open_and_close(store, may_migrate=True)
    if not before.found:
        print(f"{store.location}: made, with schema {before.newest}")
    elif before.found < before.newest:
        print(f"{store.location}: schema {before.found} -> {before.newest}")
    else:
        print(f"{store.location}: schema {before.found}, up to date")
    return DONE


async def _open_and_close(store: Store, *, may_migrate: bool) -> None:
    """It is refused, if this version cannot work with it."""
    try:
        await store.open(migrate=may_migrate)
    finally:
        await store.close()
