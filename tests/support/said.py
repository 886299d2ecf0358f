"""What a job has said, as the store holds it."""

import json
from typing import Any

from afterward import Afterward, JobHandle
from afterward.identity import new_id
from afterward.job import Event, EventKind, Process
from afterward.liveness import SUSPECT_AFTER
from afterward.stores.base import Wanted


async def events_of(tasks: Afterward, job: JobHandle[Any]) -> list[Event]:
    """All its events, in order."""
    assert await tasks.get(job.id) is not None  # which opens the store, if need be
    [stream] = await tasks.store.events([(job.id, 0)], 1_000)
    assert stream is not None
    return list(stream.events)


async def said(tasks: Afterward, job: JobHandle[Any], *kinds: EventKind) -> list[Any]:
    """The data of its events, or of those of these kinds."""
    events = await events_of(tasks, job)
    return [json.loads(event.data) for event in events if not kinds or event.kind in kinds]


async def items(tasks: Afterward, job: JobHandle[Any]) -> list[Any]:
    """What it has yielded or emitted."""
    return await said(tasks, job, EventKind.item)


async def suspect(tasks: Afterward, job: JobHandle[Any]) -> None:
    """Have its process die until it is a suspect: from then on, it runs in a child process."""
    for _ in range(SUSPECT_AFTER):
        process = new_id()
        await tasks.store.join(Process(process, 1, "example"))
        claimed = await tasks.store.claim(process, [Wanted({job.task}, 1, only=[job.id])], new_id())
        assert [lease.id for lease in claimed.leases] == [job.id]
        await tasks.store.reap([(process, None)], SUSPECT_AFTER, 0.0)
