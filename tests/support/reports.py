"""A store that hears what attempts say, and nothing else."""

import asyncio
from collections.abc import Sequence

from afterward.engine.reporter import Reporter
from afterward.engine.voice import AttemptVoice
from afterward.errors import StoreUnavailable
from afterward.job import EventKind, Lease, NewEvent, Report

LEASE = Lease("job", 1, "process", "task", "{}")


class Listener:
    """What was reported, as a store has it by then. `refuses`: those who hold their jobs no more."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Report]] = []
        self.heard: dict[str, list[NewEvent]] = {}
        self.refuses: set[str] = set()
        self.answers = asyncio.Event()
        self.answers.set()
        self.fails = 0
        self.fails_after = 0

    def report(self, reports: Sequence[tuple[Lease, Report]]) -> asyncio.Future[list[bool]]:
        return asyncio.ensure_future(self._report(reports))

    async def _report(self, reports: Sequence[tuple[Lease, Report]]) -> list[bool]:
        self.calls.append({lease.id: report for lease, report in reports})
        await self.answers.wait()
        if self.fails:
            self.fails -= 1
            raise StoreUnavailable("it is not there")
        accepted = [self.keep(lease, report) for lease, report in reports]
        if self.fails_after:
            self.fails_after -= 1
            raise StoreUnavailable("its answer is lost")
        return accepted

    def keep(self, lease: Lease, report: Report | None) -> bool:
        """What an attempt says, with its end or before."""
        if lease.id in self.refuses:
            return False
        if report is not None:
            known = self.heard.setdefault(lease.id, [])
            assert 1 <= report.first <= len(known) + 1, "there is a gap"
            known += report.events[len(known) + 1 - report.first :]
        return True

    def texts(self, job: str = "job") -> list[str]:
        """What was said, in order."""
        return [event.data for event in self.heard.get(job, [])]

    def of(self, kind: EventKind, job: str = "job") -> list[str]:
        return [event.data for event in self.heard.get(job, []) if event.kind is kind]


def unheard(lease: Lease = LEASE) -> AttemptVoice:
    """The voice of an attempt of which nothing is reported."""
    return Reporter(Listener(), None).voice(lease)
