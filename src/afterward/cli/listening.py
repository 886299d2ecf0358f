"""`afterward events`: what a job has said, and says."""

from __future__ import annotations

import json
from typing import cast

from afterward.cli.reading import found_in, opened, unknown
from afterward.cli.telling import complain, printable
from afterward.job import TERMINAL, Event, EventKind
from afterward.redaction import shown
from afterward.states import progress_in
from afterward.stores.seen import Stream

PERIOD_SECONDS = 0.4
"""How often it is looked, where nothing tells of what is said."""

_PAGE = 100


async def listen(url: str | None, id: str, *, on: bool, as_json: bool) -> None:  # noqa: A002 - it is the job's
    """Print the events of a job, a line each; with `on`, also what it says from now on, until it has ended."""
    async with opened(url) as store:
        job = (await found_in(store, id)).id
        heard = 0
        while True:
            [stream] = await store.events([(job, heard)], _PAGE)
            if stream is None:
                raise unknown(store, job)
            _tell_of_gap(heard, stream)
            for event in stream.events:
                print(line_of(event, as_json=as_json), flush=True)
                heard = event.number
            if heard >= stream.last:
                if stream.status in TERMINAL or not on:
                    return
                await store.watch([job], PERIOD_SECONDS)


def line_of(event: Event, *, as_json: bool) -> str:
    """One line, for people or for programs. What looks secret is not in it."""
    data = shown(event.data)
    if as_json:
        facts = {"number": event.number, "attempt": event.attempt, "kind": event.kind.value, "at": event.at.isoformat()}
        return json.dumps({**facts, "data": data})
    at = f"{event.at:%Y-%m-%dT%H:%M:%S}.{event.at.microsecond // 1000:03}Z"
    return printable(f"{at} {event.number} attempt={event.attempt} {event.kind.value} {_said(event, data)}").replace(
        "\n", " "
    )


def _said(event: Event, data: object) -> str:
    if event.kind is EventKind.progress:
        return progress_in(event.data)
    if event.kind is EventKind.log:
        said = cast("dict[str, object]", data)
        return f"{said['level']} {said['logger']}: {said['message']}"
    return json.dumps(data, ensure_ascii=False)


def _tell_of_gap(heard: int, stream: Stream) -> None:
    missing = stream.first - heard - 1
    if stream.first and missing > 0:
        complain(f"{missing:,} events of job {stream.id} are no longer kept")
