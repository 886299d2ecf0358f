"""`schema` and `open`: a store is made and brought up to date by who may, and by nobody else."""

import pytest

from afterward.errors import StoreUnusable
from tests.support.stores import Place, new_job, put

pytestmark = pytest.mark.anyio


async def test_a_place_without_a_store_has_no_schema_and_is_left_so(empty_place: Place) -> None:
    """By who asks for it, and by who is not to make one."""
    store = empty_place.make()
    before = await store.schema()
    assert before.found == 0 < before.newest
    with pytest.raises(StoreUnusable, match=r"there is no store at .*; make it: afterward migrate"):
        await store.open(migrate=False)
    assert await store.schema() == before


async def test_a_store_that_was_made_has_the_newest_schema(empty_place: Place) -> None:
    """Whether it is asked while it is open, or by others; and whoever is not to make one can open it."""
    store, other = await empty_place.open(), empty_place.make()
    [job] = await put(store, new_job())
    schema = await store.schema()
    assert schema.found == schema.newest > 0
    assert await other.schema() == schema
    await other.open(migrate=False)
    assert [found.id for found in await other.list()] == [job]


async def test_a_store_can_be_made_after_it_was_refused(empty_place: Place) -> None:
    store = empty_place.make()
    with pytest.raises(StoreUnusable):
        await store.open(migrate=False)
    await store.open()
    assert (await store.schema()).found > 0
    await put(store, new_job())
