"""Where claims ended, for those that follow to begin there, as long as dead entries make a full look long.

The entry of a claimed job stays in the index until a vacuum that comes once a minute, and as long as any transaction
on the server, whoever's it is, could still see it: each full look walks over all that was claimed since. When that is
much, claims begin at bookmarks, one for each stream: the jobs of one lane that have one priority. What stands before
them (a job that was given back, or has come due) and in other streams is found by the next full look. These come as
often as is possible without taking more than a tenth of the time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from afterward.stores.postgres.pace import Pace

MOST_DEAD = 2000
"""How many dead entries a look at an index may pass over before it is taken for a long one."""

_MANY = 500

_STREAM = ("queue", "task", "unfit_for", "priority")


class Bookmarks:
    """Those of one store object. As long as there are none, every claim makes a full look."""

    def __init__(self, most_dead: int = MOST_DEAD, clock: Callable[[], float] = time.monotonic) -> None:
        self.most_dead = most_dead
        self._marks: dict[tuple[Any, ...], Any] | None = None
        self._pace = Pace(clock)

    def text(self) -> str | None:
        """What a claim is to begin at, as the query takes it; None: it is to make a full look."""
        if self._marks is None or self._pace.is_due():
            return None
        return json.dumps(list(self._marks.values()))

    def seconds_until_look(self) -> float:
        """How long a claim that found nothing at the bookmarks has to wait for a full look."""
        return self._pace.seconds_left

    def looked(self, took: float, told: str | None) -> None:
        """A full look took so many seconds; and what the server told of it, when it was long."""
        self._pace.done(took)
        if told is None:
            self._marks = None
        else:
            self.move(told)

    def move(self, told: str | None) -> None:
        """Where the last claim ended, in the streams that it has seen."""
        if self._marks is None or len(self._marks) > _MANY:
            self._marks = {}
        for mark in json.loads(told or "[]"):
            self._marks[tuple(mark[column] for column in _STREAM)] = mark
