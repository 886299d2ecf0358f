"""`afterward failures`: what fails, by what it most likely fails for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from afterward.cli.output import plain_console, print_table
from afterward.cli.reading import opened
from afterward.cli.telling import printable
from afterward.states import span, summary
from afterward.stores.seen import FailureGroup

_RETRY = "Those of a group that have failed are retried by: afterward retry --all --signature SIGNATURE"
_CANCEL = (
    "Those being tried again are cancelled by: "
    "afterward cancel --all --status queued --status running --signature SIGNATURE"
)


async def failed(url: str | None, limit: int) -> list[FailureGroup]:
    """The groups of jobs that have failed for good, or are tried again; those that failed last come first."""
    async with opened(url) as store:
        return await store.failures(limit)


def print_failures(groups: Sequence[FailureGroup], *, as_json: bool) -> None:
    """A line for each group, or a JSON array."""
    if as_json:
        print(json.dumps([_facts(group) for group in groups], indent=2))
        return
    console = plain_console()
    if not groups:
        console.print("no failures")
        return
    print_table(console, _table(groups, datetime.now(UTC)))
    console.print(_RETRY, soft_wrap=True)
    console.print(_CANCEL, soft_wrap=True)


def _facts(group: FailureGroup) -> dict[str, Any]:
    return {
        "signature": group.signature,
        "task": group.task,
        "count": group.count,
        "retrying": group.retrying,
        "kind": group.failure.kind,
        "message": group.failure.message,
        "first_at": group.first_at.isoformat(),
        "last_at": group.last_at.isoformat(),
        "newest": group.newest,
    }


def _table(groups: Sequence[FailureGroup], now: datetime) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("failed", "tried again"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("last", no_wrap=True)
    for name in ("signature", "task", "newest", "failure"):
        table.add_column(name, overflow="fold")
    for group in groups:
        texts = (f"{span(now - group.last_at)} ago", group.signature, group.task, group.newest, summary(group.failure))
        table.add_row(f"{group.count:,}", f"{group.retrying:,}", *(Text(printable(text)) for text in texts))
    return table
