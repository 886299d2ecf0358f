"""The queues: what waits in each, who serves it; to pause, and to resume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Response

from afterward.stores.base import QueueStats
from afterward.stores.seen import Pause, ProcessSeen
from afterward.web.dashboard.verdict import serves
from afterward.web.dashboard.visit import Visit


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One queue, with those who serve it."""

    name: str
    counts: QueueStats
    pause: Pause | None
    workers: Sequence[ProcessSeen]


async def queues(visit: Visit) -> Response:
    """All queues that anything is known of now."""
    stats, paused, processes = await visit.store.stats(), await visit.store.paused(), await visit.store.processes()
    counts = {queue.queue: queue for queue in stats.queues}
    pauses = {pause.queue: pause for pause in paused}
    served = {name for process in processes if process.served for name in process.served.queues or ()}
    own = {task.call_options.queue for task in visit.host.tasks.values()}
    rows = [
        QueueRow(
            name,
            counts.get(name, QueueStats(name, 0, 0.0, 0, 0, 0)),
            pauses.get(name),
            [process for process in processes if serves(process, name)],
        )
        for name in sorted({*counts, *pauses, *served, *own})
    ]
    is_handing = any(queue.handed for queue in stats.queues)
    return visit.page("queues.html", page="queues", rows=rows, is_handing=is_handing)
