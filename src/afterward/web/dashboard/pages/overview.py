"""How it stands: what is stuck, what there is to do in each queue, what has ended lately."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fastapi import Response

from afterward.stores.base import QueueStats, Stats
from afterward.stores.seen import Pause, Period, ProcessSeen
from afterward.web.dashboard.charts import Chart, chart, slots
from afterward.web.dashboard.verdict import serves, verdict
from afterward.web.dashboard.visit import Visit


@dataclass(frozen=True, slots=True)
class Range:
    """A span of time up to now, in slots. Both in seconds."""

    name: str
    seconds: int
    slot: int

    def began(self, now: datetime) -> datetime:
        """When its first slot began: slots are counted from 1970."""
        last = now.timestamp() // self.slot * self.slot
        return datetime.fromtimestamp(last - self.seconds + self.slot, UTC)

    @property
    def count(self) -> int:
        """How many slots it has."""
        return self.seconds // self.slot


RANGES = {"1h": Range("1 hour", 3600, 60), "24h": Range("24 hours", 86_400, 1800)}

_ALL_SECONDS = 1e10
"""A span in which everything lies, so that one period tells of all that is asked for."""

_GROUPS = 3


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One queue. `ended`: what ended in the range, as one period; None for nothing."""

    name: str
    counts: QueueStats
    pause: Pause | None
    is_served: bool
    ended: Period | None
    spark: Chart


@dataclass(frozen=True, slots=True)
class Ended:
    """What ended since `began`: by slots, and for each queue as one period."""

    began: datetime
    periods: Sequence[Period]
    totals: Mapping[str, Period]


async def overview(visit: Visit) -> Response:
    """The first page."""
    chosen = visit.query.get("range", "")
    chosen = chosen if chosen in RANGES else "1h"
    span, store = RANGES[chosen], visit.store
    stats, paused, processes = await store.stats(), await store.paused(), await store.processes()
    ended: Ended = await visit.remembered.get((store, chosen), lambda: _ended(visit, span))
    return visit.page(
        "overview.html", page="overview", verdict=verdict(stats, paused, processes), chosen=chosen, ranges=RANGES,
        span=span, rows=_rows(span, ended, stats, paused, processes),
        chart=chart(slots(ended.periods, ended.began, span.slot, span.count), 1200, 120),
        ended=_sums(ended.totals.values()), waiting=[queue.depth for queue in stats.queues],
        later=[queue.later for queue in stats.queues], running=sum(queue.running for queue in stats.queues),
        workers=sum(1 for process in processes if process.served), groups=await store.failures(_GROUPS),
    )  # fmt: skip


async def _ended(visit: Visit, span: Range) -> Ended:
    began = span.began(visit.now)
    periods = await visit.store.history(began, span.slot)
    totals = await visit.store.history(began, _ALL_SECONDS)
    return Ended(began, periods, {period.queue: period for period in totals})


def _rows(
    span: Range, ended: Ended, stats: Stats, paused: Sequence[Pause], processes: Sequence[ProcessSeen]
) -> list[QueueRow]:
    counts = {queue.queue: queue for queue in stats.queues}
    pauses = {pause.queue: pause for pause in paused}
    rows: list[QueueRow] = []
    for name in sorted({*ended.totals, *counts, *pauses}):
        mine = [period for period in ended.periods if period.queue == name]
        spark = chart(slots(mine, ended.began, span.slot, span.count), 120, 20, gap=0)
        is_served = any(serves(process, name) for process in processes)
        own = counts.get(name, QueueStats(name, 0, 0.0, 0, 0, 0))
        rows.append(QueueRow(name, own, pauses.get(name), is_served, ended.totals.get(name), spark))
    return rows


def _sums(periods: Iterable[Period]) -> Mapping[str, int]:
    found = list(periods)
    return {name: sum(getattr(period, name) for period in found) for name in ("succeeded", "failed", "cancelled")}
