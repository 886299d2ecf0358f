"""Failures of one cause are one group, however the task is run; those of another are another."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Annotated, Any

import pytest
from fastapi import Depends

from afterward import Afterward, GiveUp, Task
from afterward.engine.worker import WorkerOptions

pytestmark = pytest.mark.anyio

numbers = count(1)


def charge(order: int) -> None:
    raise ValueError(f"order {order} was refused by 'bank-{order}'")


async def connect() -> AsyncIterator[None]:
    yield
    charge(next(numbers))


async def test_what_fails_in_one_place_is_one_group(tasks: Afterward) -> None:
    """In the loop, in a thread, in a dependency, in a part of a task group, of several tasks."""

    @tasks.task(max_attempts=1)
    async def in_loop(order: int) -> None:
        charge(order)

    @tasks.task(max_attempts=1)
    def in_thread(order: int) -> None:
        charge(order)

    @tasks.task(max_attempts=1)
    async def in_a_dependency(order: int, connection: Annotated[None, Depends(connect)]) -> None: ...

    @tasks.task(max_attempts=1)
    async def in_a_group(order: int) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(charge, order))

    @tasks.task(max_attempts=1)
    async def elsewhere(order: int) -> None:
        raise ValueError(f"order {order} was refused by 'bank-{order}'")

    @tasks.task(max_attempts=1)
    async def otherwise(order: int) -> None:
        raise GiveUp(f"order {order} was refused by 'bank-{order}'")

    @tasks.task(max_attempts=1, timeout=0.01)
    async def too_long(order: int) -> None:
        await asyncio.sleep(60)

    every: list[Task[..., Any]] = [in_loop, in_thread, in_a_dependency, in_a_group, elsewhere, otherwise, too_long]
    handles = await tasks.enqueue_many(task.prepare(order) for task in every for order in (1, 2))
    async with tasks.running(WorkerOptions()):
        await tasks.ended([handle.id for handle in handles], timeout=20)
        groups = await tasks.store.failures(10)

    assert {group.signature.rpartition("-")[0]: group.count for group in groups} == {
        "ValueError-charge": 8,
        "ValueError-elsewhere": 2,
        "GiveUp-otherwise": 2,
        "AttemptTimedOut-too_long": 2,
    }
