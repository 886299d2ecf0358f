"""What there is to do: a table for people, and one line of JSON for what decides how many workers there are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from rich.table import Table
from rich.text import Text

from afterward.cli.output import plain_console, print_table
from afterward.cli.reading import opened
from afterward.cli.telling import printable
from afterward.sizes import many
from afterward.states import span
from afterward.stores.base import COUNTED, QueueStats, Stats
from afterward.stores.seen import Pause


async def count(url: str | None) -> tuple[Stats, Sequence[Pause]]:
    """What the store of this URL, or the default one, has to do now; and which queues are paused."""
    async with opened(url) as store:
        return await store.stats(), await store.paused()


def print_stats(stats: Stats, pauses: Sequence[Pause], *, as_json: bool) -> None:
    """A line for each queue and one for all, or a JSON object in one line."""
    if as_json:
        facts: dict[str, Any] = {"queues": {counts.queue: _facts(counts) for counts in stats.queues}}
        facts |= {"total": _facts(_sum(stats.queues)), "processes": stats.processes}
        print(json.dumps({**facts, "paused": [pause.queue for pause in pauses]}))
        return
    console = plain_console()
    if stats.queues:
        print_table(console, _table(stats.queues))
    else:
        console.print("no jobs to do")
    for pause in pauses:
        console.print(Text(printable(f"queue {pause.queue} is paused, by {pause.by}")), soft_wrap=True)
    console.print(many(stats.processes, "process lives", "processes live"))


def _facts(counts: QueueStats) -> dict[str, Any]:
    facts = {**asdict(counts), "oldest_age": round(counts.oldest_age, 3)}
    del facts["queue"]
    return facts


def _sum(queues: Sequence[QueueStats]) -> QueueStats:
    return QueueStats(
        queue="total",
        depth=sum(counts.depth for counts in queues),
        oldest_age=max((counts.oldest_age for counts in queues), default=0.0),
        later=sum(counts.later for counts in queues),
        held=sum(counts.held for counts in queues),
        running=sum(counts.running for counts in queues),
        handed=sum(counts.handed for counts in queues),
    )


def _table(queues: Sequence[QueueStats]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = ["queue", "depth", "oldest", "later", "held", "running"]
    if any(counts.handed for counts in queues):  # who has no Celery has no column of it
        names.append("handed")
    for name in names:
        table.add_column(name, overflow="fold", justify="left" if name == "queue" else "right")
    for counts in queues:
        table.add_row(Text(printable(counts.queue)), *list(_cells([counts]))[: len(names) - 1])
    if len(queues) > 1:
        table.add_row(Text("total", "bold"), *list(_cells(queues))[: len(names) - 1])
    return table


def _cells(queues: Sequence[QueueStats]) -> Iterator[str]:
    """Of one queue, or of all together."""
    total = _sum(queues)
    yield _counted(counts.depth for counts in queues)
    yield span(timedelta(seconds=total.oldest_age)) if total.depth else ""
    yield _counted(counts.later for counts in queues)
    yield f"{total.held:,}"
    yield f"{total.running:,}"
    yield _counted(counts.handed for counts in queues)


def _counted(numbers: Iterator[int]) -> str:
    """Their sum; of a number that was counted no further, it is known that it is not smaller."""
    found = list(numbers)
    return f"{'≥ ' if COUNTED in found else ''}{sum(found):,}"
