"""What one attempt has said and the store is not known to have: in order, and numbered as it is sent."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from afterward.job import EventKind, NewEvent, Outcome, Report

MAX_GATHERED, MAX_GATHERED_BYTES = 1_000, 1024 * 1024
"""So many events of one attempt, and so many bytes of them, are kept at most until the store has them."""


class Said(NamedTuple):
    """An event. `at`: when it happened, by whatever clock the reports are made."""

    kind: EventKind
    data: str
    at: float


class Gathered:
    """Progress that is not sent yet is replaced by later progress; what is sent once keeps its number, and stays."""

    def __init__(self) -> None:
        self._stored = 0
        self._sent: list[Said] = []
        self._waiting: dict[int, Said] = {}
        self._added = 0
        self._progress = 0
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._sent or self._waiting)

    @property
    def is_full(self) -> bool:
        """Is it as much as may be kept?"""
        return len(self._sent) + len(self._waiting) >= MAX_GATHERED or self._bytes >= MAX_GATHERED_BYTES

    def add(self, said: Said) -> None:
        """The last that was said."""
        self._added += 1
        self._waiting[self._added] = said
        self._bytes += len(said.data)
        if said.kind is EventKind.progress:
            replaced = self._waiting.pop(self._progress, None)
            self._bytes -= 0 if replaced is None else len(replaced.data)
            self._progress = self._added

    def number(self) -> int:
        """Give all of it its numbers: from here on, it is not replaced. The number of the last that was said."""
        self._sent += self._waiting.values()
        self._waiting.clear()
        return self._stored + len(self._sent)

    def has_stored(self, number: int) -> bool:
        """Is all up to this number known to be stored?"""
        return self._stored >= number

    def report(self, now: float) -> Report:
        """All of it, to be sent."""
        self.number()
        return Report(self._stored + 1, tuple(NewEvent(kind, data, now - at) for kind, data, at in self._sent))

    def have_stored(self, report: Report) -> None:
        """The store has what that report said."""
        count = report.first - 1 + len(report.events) - self._stored
        if count > 0:
            self._bytes -= sum(len(said.data) for said in self._sent[:count])
            del self._sent[:count]
            self._stored += count


def later(outcome: Outcome, seconds: float) -> Outcome:
    """The same, so many seconds after: what was said with it is older by then."""
    report = outcome.report
    if report is None:
        return outcome
    events = tuple(event._replace(age=event.age + seconds) for event in report.events)
    return replace(outcome, report=report._replace(events=events))
