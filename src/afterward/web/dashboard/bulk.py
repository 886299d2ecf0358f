"""One action for all jobs that some filters leave: shown before it is done, and done when its word is typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fastapi import Response

from afterward.job import Job, Ruling, Status
from afterward.web.dashboard.actions import MOVES
from afterward.web.dashboard.audit import audit
from afterward.web.dashboard.filters import Filters, filters
from afterward.web.dashboard.guard import Refused
from afterward.web.dashboard.visit import Visit

MOST = 10_000
"""So many jobs are moved by one action."""

COUNTED = 1_000
"""So many are counted before: this means so many, or more."""

STATUSES: Mapping[str, Sequence[Status]] = {
    "retry": (Status.failed, Status.cancelled),
    "cancel": (Status.queued, Status.running),
}
"""Which jobs an action is for."""

PAGE = 250
"""So many of them in one transaction: nobody waits long for it."""

_SHOWN = 5


async def confirm(visit: Visit) -> Response:
    """What would be done, with how many, and the form to agree in."""
    action, wanted = _asked(visit.query)
    ids, shown = await _matching(visit, action, wanted, COUNTED)
    newest = ids[0] if ids else ""
    return visit.page(
        "bulk.html", action=action, filters=wanted, count=len(ids), counted=COUNTED, most=MOST, shown=shown,
        newest=newest,
    )  # fmt: skip


async def act(visit: Visit, form: Mapping[str, str]) -> Response:
    """Do it, with those that were there when it was asked about."""
    action, wanted = _asked(form)
    if form.get("word", "").strip().lower() != action:
        return visit.go("/jobs", **wanted.query, said="word")
    newest = form.get("newest", "")
    ids, _ = await _matching(visit, action, wanted, MOST, newest) if newest else ([], [])
    rulings: list[Ruling] = []
    for start in range(0, len(ids), PAGE):
        rulings += await MOVES[action](visit.store, ids[start : start + PAGE])
    done, asked = rulings.count(Ruling.done), rulings.count(Ruling.asked)
    counts = {"asked": asked or None, "refused": (len(rulings) - done - asked) or None}
    # What was searched for stands in arguments, maybe.
    said = {**replace(wanted, text=None).query, "searched": True if wanted.text else None}
    audit(visit, f"{action}_all", **said, done=done, **counts)
    return visit.go("/jobs", **wanted.query, **{action: done}, **counts)


def _asked(said: Mapping[str, str]) -> tuple[str, Filters]:
    action, wanted = said.get("action", ""), filters(said)
    if action not in STATUSES:
        raise Refused("There is no such action", "For all jobs that match, there is retry, and cancel.", 404)
    if wanted.status is not None and wanted.status not in STATUSES[action]:
        raise Refused("This cannot be done", f"There is no {action} for a job that is {wanted.status.value}.", 409)
    return action, wanted


async def _matching(
    visit: Visit, action: str, wanted: Filters, most: int, newest: str = ""
) -> tuple[list[str], list[Job]]:
    """Their ids, and the newest of them to be shown: thousands of jobs with their arguments are not kept at once.

    `newest`: which was that before; what has been stored since is passed over, however much that is.
    """
    statuses = (wanted.status,) if wanted.status else STATUSES[action]
    ids = [newest] if newest else []
    shown: list[Job] = []
    while len(ids) < most:
        page = await wanted.page(visit.store, PAGE, ids[-1] if ids else None, statuses)
        shown = shown or page[:_SHOWN]
        ids += [job.id for job in page]
        if len(page) < PAGE:
            break
    return ids[:most], shown
