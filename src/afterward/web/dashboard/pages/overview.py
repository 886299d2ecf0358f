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
    def last(self) -> str:
        """It, after "in the last"."""
        return self.name.removeprefix("1 ")

    @property
    def count(self) -> int:
        """How many slots it has."""
        return self.seconds // self.slot


RANGES = {"1h": Range("1 hour", 3600, 60), "24h": Range("24 hours", 86_400, 1800)}

_ALL_SECONDS = 1e10
"""A span in which everything lies, so that one period tells of all that is asked for."""

SAMPLE = 10_000
"""How long jobs waited and ran is told of so many that ended last, and of those that ended about the same time."""

_GROUPS = 3


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One queue. `succeeded`, `failed`: in the range. `sample`: of how long they took; None for nothing."""

    name: str
    counts: QueueStats
    pause: Pause | None
    is_served: bool
    succeeded: int
    failed: int
    sample: Period | None
    spark: Chart


@dataclass(frozen=True, slots=True)
class Ended:
    """What ended since `began`, by slots; and since `sampled`, by queue, as one period, for how long it took."""

    began: datetime
    periods: Sequence[Period]
    sampled: datetime
    sample: Mapping[str, Period]


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
        ended={kind: _sum(ended.periods, kind) for kind in ("succeeded", "failed")},
        sampled=None if ended.sampled == ended.began else ended.sampled,
        waiting=[queue.depth for queue in stats.queues], later=[queue.later for queue in stats.queues],
        running=sum(queue.running for queue in stats.queues), handed=[queue.handed for queue in stats.queues],
        workers=sum(1 for process in processes if process.served), groups=await store.failures(_GROUPS),
    )  # fmt: skip


async def _ended(visit: Visit, span: Range) -> Ended:
    began = span.began(visit.now)
    periods = await visit.store.history(began, span.slot)
    since = sampled_since(periods, began)
    sample = await visit.store.history(since, _ALL_SECONDS)
    return Ended(began, periods, since, {period.queue: period for period in sample})


def sampled_since(periods: Sequence[Period], began: datetime) -> datetime:
    """Since when `SAMPLE` jobs have ended, as far back as `began`."""
    count = 0
    for period in reversed(periods):
        count += period.succeeded + period.failed
        if count >= SAMPLE:
            return max(began, period.began)
    return began


def _rows(
    span: Range, ended: Ended, stats: Stats, paused: Sequence[Pause], processes: Sequence[ProcessSeen]
) -> list[QueueRow]:
    counts = {queue.queue: queue for queue in stats.queues}
    pauses = {pause.queue: pause for pause in paused}
    rows: list[QueueRow] = []
    periods: dict[str, list[Period]] = {}
    for period in ended.periods:
        periods.setdefault(period.queue, []).append(period)
    for name in sorted({*periods, *counts, *pauses}):
        mine = periods.get(name, [])
        spark = chart(slots(mine, ended.began, span.slot, span.count), 120, 20, gap=0)
        is_served = any(serves(process, name) for process in processes)
        own = counts.get(name, QueueStats(name, 0, 0.0, 0, 0, 0))
        done, failed = (_sum(mine, kind) for kind in ("succeeded", "failed"))
        rows.append(QueueRow(name, own, pauses.get(name), is_served, done, failed, ended.sample.get(name), spark))
    return rows


def _sum(periods: Iterable[Period], kind: str) -> int:
    return sum(getattr(period, kind) for period in periods)
