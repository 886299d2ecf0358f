"""Which jobs a page shows, as its URL says."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from afterward.job import Job, Status
from afterward.stores.base import Store
from afterward.text import is_storable

_LONGEST = 500
_UNSIGNED = "-"


@dataclass(frozen=True, slots=True)
class Filters:
    """None lets everything pass. `signature`: "" for failures that have none."""

    status: Status | None = None
    task: str | None = None
    queue: str | None = None
    owner: str | None = None
    signature: str | None = None
    text: str | None = None

    @property
    def query(self) -> dict[str, str]:
        """The same, as a URL or a form has it."""
        said = {
            "status": self.status, "task": self.task, "queue": self.queue, "owner": self.owner,
            "signature": _UNSIGNED if self.signature == "" else self.signature, "q": self.text,
        }  # fmt: skip
        return {name: str(value) for name, value in said.items() if value is not None}

    async def page(
        self, store: Store, limit: int, before: str | None = None, statuses: Collection[Status] | None = None
    ) -> list[Job]:
        """The newest of those jobs, or the newest before one. `statuses`: of one of these, whatever is said else."""
        return await store.list(
            status=statuses or self.status,
            task=self.task,
            queue=self.queue,
            owner=self.owner,
            signature=self.signature,
            text=self.text,
            before=before,
            limit=limit,
        )


def filters(said: Mapping[str, str]) -> Filters:
    """What a URL or a form says; what makes no sense there is as if it were not said."""

    def word(name: str) -> str | None:
        text = said.get(name, "").strip()[:_LONGEST]
        return text if text and is_storable(text) else None

    status, signature = word("status"), word("signature")
    return Filters(
        Status(status) if status in _statuses() else None,
        word("task"),
        word("queue"),
        word("owner"),
        "" if signature == _UNSIGNED else signature,
        word("q"),
    )


def _statuses() -> Sequence[str]:
    return [status.value for status in Status]
