"""What the web needs of an `Afterward`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from afterward.job import Job, Ruling
from afterward.life import Life
from afterward.task import Task
from afterward.web.tail import Tails


@dataclass(frozen=True, slots=True)
class Place:
    """Where an application shows jobs: by this endpoint, whose requests wait for so many seconds at most."""

    endpoint: Callable[..., Any]
    max_wait: float


class Jobs(Protocol):
    """The jobs of one `Afterward`. `places`: where they are shown, in the order in which the routers were made."""

    life: Life
    tails: Tails
    places: list[Place]

    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]: ...

    async def get(self, job: str, /) -> Job | None: ...

    async def cancel(self, job: str, /) -> Ruling: ...

    async def retry(self, job: str, /) -> Ruling: ...
