"""What a person wants of one job, or of a queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fastapi import Response

from afterward.job import Ruling
from afterward.stores.base import Answer, Store
from afterward.text import is_storable
from afterward.web.dashboard.audit import audit
from afterward.web.dashboard.guard import Refused
from afterward.web.dashboard.lookup import found
from afterward.web.dashboard.visit import Visit

MOVES: dict[str, Callable[[Store, Sequence[str]], Answer[list[Ruling]]]] = {
    "cancel": lambda store, ids: store.cancel(ids),
    "retry": lambda store, ids: store.retry(ids),
    "hasten": lambda store, ids: store.hasten(ids),
}

LONGEST_QUEUE = 100


async def move(visit: Visit, _: Mapping[str, str]) -> Response:
    """Make the move that the path names with the job that it names."""
    action, id_ = visit.request.path_params["action"], visit.request.path_params["id"]
    if action not in MOVES:
        raise Refused("There is no such action", "A job is cancelled, retried, or hastened.", 404)
    job = await found(visit)
    [ruling] = await MOVES[action](visit.store, [job.id])
    audit(visit, action, job_id=id_, ruling=ruling.value)
    match ruling:
        case Ruling.done:
            return visit.go(f"/jobs/{id_}", **{action: 1})
        case Ruling.asked:
            return visit.go(f"/jobs/{id_}", asked=1)
        case _:
            return visit.go(f"/jobs/{id_}", said=ruling.value)


async def pause(visit: Visit, form: Mapping[str, str]) -> Response:
    """Have nobody claim from a queue."""
    queue = _queue(form)
    is_done = await visit.store.pause(queue, visit.who or "the dashboard")
    audit(visit, "pause", queue=queue, done=is_done)
    return visit.go("/queues", said="paused" if is_done else "already")


async def resume(visit: Visit, form: Mapping[str, str]) -> Response:
    """Let the jobs of a queue be claimed again."""
    queue = _queue(form)
    is_done = await visit.store.resume(queue)
    audit(visit, "resume", queue=queue, done=is_done)
    return visit.go("/queues", said="resumed" if is_done else "already")


def _queue(form: Mapping[str, str]) -> str:
    queue = form.get("queue", "")
    if not 0 < len(queue) <= LONGEST_QUEUE or not is_storable(queue):
        raise Refused("There is no such queue", f"The name of one has 1 to {LONGEST_QUEUE} characters.", 400)
    return queue
